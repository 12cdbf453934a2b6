//! Bytes that are no calls: random ones, broken frames and malformed messages on both sockets. Nothing of it may take the daemon
//! down, keep it from answering, or make it grow. The seed is printed; `LITE_SEED` repeats a run, `LITE_ROUNDS` makes it longer.

mod store;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use store::Daemon;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

/// A small generator: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let length = self.below(most);
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Sends bytes and takes what comes, as long as it comes.
fn throw(socket: &Path, bytes: &[u8]) {
    let Ok(mut stream) = UnixStream::connect(socket) else {
        panic!("the daemon does not listen any more");
    };
    let short = Some(Duration::from_millis(20));
    stream.set_read_timeout(short).expect("timeout");
    stream.set_write_timeout(short).expect("timeout");
    // It may close the connection in the middle.
    let _ = stream.write_all(bytes);
    let mut answer = [0; 4096];
    let _ = stream.read(&mut answer);
}

/// HTTP/2: the preface, then frames whose headers are well formed and whose bodies are not.
fn http2(random: &mut Random) -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for _ in 0..random.below(8) {
        let body = random.bytes(200);
        let length = match random.below(8) {
            0 => 0xff_ffff,
            _ => body.len() as u64,
        };
        out.extend(&length.to_be_bytes()[5..]);
        out.push(random.below(12) as u8);
        out.push(random.next() as u8);
        out.extend((random.below(4) as u32).to_be_bytes());
        out.extend(body);
    }
    out
}

/// ttrpc: length, stream, type and flags, then a message that may be none.
fn ttrpc(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..1 + random.below(4) {
        let body = random.bytes(200);
        let length = match random.below(6) {
            0 => u32::MAX,
            1 => 5 << 20,
            _ => body.len() as u32,
        };
        out.extend(length.to_be_bytes());
        out.extend((random.below(5) as u32).to_be_bytes());
        out.push(1 + random.below(3) as u8);
        out.push(random.below(8) as u8);
        out.extend(body);
    }
    out
}

/// Messages as they are.
#[derive(Debug, Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length).to_vec()))
    }
}

/// One method of every service, and those with the largest messages.
const METHODS: [&str; 22] = [
    "/containerd.services.containers.v1.Containers/Create",
    "/containerd.services.containers.v1.Containers/Update",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Update",
    "/containerd.services.diff.v1.Diff/Apply",
    "/containerd.services.diff.v1.Diff/Diff",
    "/containerd.services.events.v1.Events/Publish",
    "/containerd.services.events.v1.Events/Forward",
    "/containerd.services.images.v1.Images/Create",
    "/containerd.services.images.v1.Images/Update",
    "/containerd.services.introspection.v1.Introspection/PluginInfo",
    "/containerd.services.leases.v1.Leases/Create",
    "/containerd.services.leases.v1.Leases/AddResource",
    "/containerd.services.namespaces.v1.Namespaces/Update",
    "/containerd.services.sandbox.v1.Controller/Create",
    "/containerd.services.sandbox.v1.Store/Create",
    "/containerd.services.snapshots.v1.Snapshots/Prepare",
    "/containerd.services.snapshots.v1.Snapshots/Update",
    "/containerd.services.tasks.v1.Tasks/Create",
    "/containerd.services.tasks.v1.Tasks/Exec",
    "/containerd.services.transfer.v1.Transfer/Transfer",
    "/lite.control.v1.Control/Status",
];

/// Bytes that often are a message: fields of small numbers, with lengths that may lie.
fn message(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.below(6) {
        let field = 1 + random.below(10) as u8;
        match random.below(4) {
            0 => out.extend([field << 3, random.next() as u8 & 0x7f]),
            1 => out.extend(random.bytes(12)),
            _ => {
                let inner = random.bytes(24);
                let lie = if random.below(8) == 0 { 9 } else { 0 };
                out.extend([field << 3 | 2, inner.len() as u8 + lie]);
                out.extend(inner);
            }
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_take_the_daemon_down() {
    let seed = number("LITE_SEED", u64::from(std::process::id()) << 20 | 1);
    let rounds = number("LITE_ROUNDS", 60);
    println!("LITE_SEED={seed} LITE_ROUNDS={rounds}");
    let mut random = Random(seed | 1);
    let daemon = Daemon::start().await;
    let events = daemon.socket().with_extension("sock.ttrpc");
    let client = daemon.client("fuzz", None).await;
    for round in 0..rounds {
        throw(&daemon.socket(), &random.bytes(300));
        throw(&daemon.socket(), &http2(&mut random));
        throw(&events, &ttrpc(&mut random));
        throw(&events, &random.bytes(100));
        let path = METHODS[random.below(METHODS.len() as u64) as usize];
        let mut raw = tonic::client::Grpc::new(client.channel.clone());
        raw.ready().await.expect("the daemon is gone");
        let request: Request<Vec<u8>> = client.request(message(&mut random));
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        let asked = raw.unary::<_, Vec<u8>, _>(request, path.clone(), Raw);
        let answer = tokio::time::timeout(Duration::from_secs(20), asked).await;
        // Whatever it says, it says something, and it says it itself.
        let answer = answer.unwrap_or_else(|_| panic!("no answer of {path} in round {round}"));
        if let Err(status) = answer {
            let code = status.code();
            let gone = status.message().contains("transport error");
            assert!(!gone, "{path} in round {round}: {code} {status}");
        }
    }
    // It is the same process still, and does its work.
    client.create_lease("after").await.expect("lease");
    let held = daemon.client("fuzz", Some("after")).await;
    held.prepare("after", "").await.expect("prepare");
    held.remove("after").await.expect("remove");
}
