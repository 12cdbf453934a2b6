//! Makes `proto/src/generated/` from the `.proto` files: messages by prost, gRPC by tonic, ttrpc glue by the small generator below.
//!
//! Run by `make proto`; what it makes is checked in, and CI fails on a difference.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost_build::{Method, Service, ServiceGenerator};

/// Services that are spoken over ttrpc; all others are gRPC.
const TTRPC: [&str; 5] = [
    "containerd.task.v2",
    "containerd.task.v3",
    "containerd.runtime.sandbox.v1",
    "containerd.services.events.ttrpc.v1",
    "lite.control.v1",
];
/// Packages whose services are spoken over gRPC.
const GRPC_TOO: [&str; 1] = ["lite.control.v1"];

/// Fields that hold much: not copied on their way to and from the wire.
const BYTES: [&str; 2] = [
    ".containerd.services.content.v1.ReadContentResponse.data",
    ".containerd.services.content.v1.WriteContentRequest.data",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["containerd", "google", "grpc", "lite"] {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    let set = protox::compile(&files, [&root])?;
    let out = root.join("src/generated");
    std::fs::create_dir_all(&out)?;
    let mut config = prost_build::Config::new();
    config
        .out_dir(&out)
        .enable_type_names()
        .bytes(BYTES)
        .service_generator(Box::new(Both {
            grpc: tonic_prost_build::configure()
                .build_client(true)
                .build_server(true)
                .client_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
                .server_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
                .service_generator(),
        }));
    config.compile_fds(set)?;
    Ok(())
}

/// Collects the `.proto` files under `folder`.
fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            into.push(path);
        }
    }
    Ok(())
}

/// Chooses the generator by package.
struct Both {
    grpc: Box<dyn ServiceGenerator>,
}

impl ServiceGenerator for Both {
    fn generate(&mut self, service: Service, buf: &mut String) {
        let package = service.package.as_str();
        if TTRPC.contains(&package) {
            write_ttrpc(&service, buf).expect("writing to a string does not fail");
        }
        if !TTRPC.contains(&package) || GRPC_TOO.contains(&package) {
            self.grpc.generate(service, buf);
        }
    }

    fn finalize(&mut self, buf: &mut String) {
        self.grpc.finalize(buf);
    }
}

/// Writes a server trait, its dispatch table and a client for one service.
fn write_ttrpc(service: &Service, buf: &mut String) -> std::fmt::Result {
    let full = format!("{}.{}", service.package, service.proto_name);
    let module = format!("{}_ttrpc", snake(&service.name));
    writeln!(buf, "/// ttrpc server and client of `{full}`.")?;
    writeln!(buf, "#[cfg(feature = \"ttrpc\")]\npub mod {module} {{")?;
    writeln!(
        buf,
        "    use crate::ttrpc::{{self as glue, async_trait, Call, Client, Method, Service, Status, TtrpcContext}};"
    )?;
    writeln!(
        buf,
        "    use std::{{collections::HashMap, sync::Arc, time::Duration}};"
    )?;
    writeln!(buf, "    /// Full name of the service on the wire.")?;
    writeln!(buf, "    pub const NAME: &str = \"{full}\";")?;
    writeln!(
        buf,
        "    /// What a server of the service implements; a method left out answers Unimplemented."
    )?;
    writeln!(
        buf,
        "    #[async_trait]\n    pub trait {}: Send + Sync + 'static {{",
        service.name
    )?;
    for m in &service.methods {
        let (input, output) = (path(&m.input_type), path(&m.output_type));
        writeln!(buf, "        /// `{}`", m.proto_name)?;
        writeln!(
            buf,
            "        async fn {}(&self, _ctx: &TtrpcContext, _request: {input}) -> Result<{output}, Status> {{\n            Err(glue::unimplemented(NAME, \"{}\"))\n        }}",
            m.name, m.proto_name
        )?;
    }
    writeln!(buf, "    }}")?;
    writeln!(
        buf,
        "    /// The dispatch table for `ttrpc::r#async::Server::register_service`."
    )?;
    writeln!(
        buf,
        "    pub fn service<T: {}>(server: Arc<T>) -> HashMap<String, Service> {{",
        service.name
    )?;
    writeln!(buf, "        let mut methods = glue::Methods::new();")?;
    for m in &service.methods {
        write_method(m, buf)?;
    }
    writeln!(buf, "        glue::table(NAME, methods)\n    }}")?;
    writeln!(
        buf,
        "    /// Typed calls over one connection.\n    #[derive(Clone)]\n    pub struct {}Client(pub Client);",
        service.name
    )?;
    writeln!(
        buf,
        "    impl std::fmt::Debug for {}Client {{\n        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{\n            f.write_str(NAME)\n        }}\n    }}",
        service.name
    )?;
    writeln!(buf, "    impl {}Client {{", service.name)?;
    for m in &service.methods {
        let (input, output) = (path(&m.input_type), path(&m.output_type));
        writeln!(
            buf,
            "        /// `{}`; `timeout` bounds the wait, none waits without limit.",
            m.proto_name
        )?;
        writeln!(
            buf,
            "        pub async fn {}(&self, call: &Call, timeout: Option<Duration>, request: &{input}) -> Result<{output}, Status> {{\n            glue::call(&self.0, NAME, \"{}\", call, timeout, request).await\n        }}",
            m.name, m.proto_name
        )?;
    }
    writeln!(buf, "    }}\n}}")
}

/// Writes the entry of one method in the dispatch table.
fn write_method(m: &Method, buf: &mut String) -> std::fmt::Result {
    let input = path(&m.input_type);
    writeln!(
        buf,
        "        let s = server.clone();\n        methods.add(\"{}\", Method::new(move |ctx: TtrpcContext, request: {input}| {{\n            let s = s.clone();\n            async move {{ s.{}(&ctx, request).await }}\n        }}));",
        m.proto_name, m.name
    )
}

/// A type's path as seen from inside the service's module.
fn path(ty: &str) -> String {
    if ty == "()" || ty.starts_with("::") {
        ty.to_owned()
    } else {
        format!("super::{ty}")
    }
}

/// `TaskEvents` to `task_events`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.char_indices() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
