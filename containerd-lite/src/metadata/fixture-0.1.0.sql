-- A database of version 0.1.0, frozen: every later version opens it. Made by the program itself, then dumped.
BEGIN TRANSACTION;
CREATE TABLE containers (
  ns TEXT NOT NULL, id TEXT NOT NULL, image TEXT NOT NULL, runtime TEXT NOT NULL,
  options_url TEXT, options BLOB, spec_url TEXT, spec BLOB,
  snapshotter TEXT NOT NULL, snapshot_key TEXT NOT NULL, sandbox TEXT NOT NULL, labels TEXT NOT NULL,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY (ns, id));
INSERT INTO "containers" VALUES('default','c1','docker.io/library/bb:1','io.containerd.runc.v2','containerd.runc.v1.Options',X'','types.containerd.io/opencontainers/runtime-spec/1/Spec',X'7B7D','overlayfs','c1','','{"io.containerd.image.config.stop-signal":"SIGTERM","k.with.dots":"v"}',1795499479459646548,1795499479578494129);
CREATE TABLE content (
  ns TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, labels TEXT NOT NULL,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY (digest, ns)) WITHOUT ROWID;
INSERT INTO "content" VALUES('default','sha256:1f625e394bee9ef13b032d266c858d548dd62fa05a2a44fb66c2788474cd1cfd',343,'{"containerd.io/gc.ref.snapshot.overlayfs":"sha256:58360517da2aff6d01afdf8075249f38de8d872639ec2996fcf48b80f30fd207"}',1795499476669954256,1795499479227592507);
INSERT INTO "content" VALUES('default','sha256:9fd96f104477ecd4e118a86df6af2e0642ecad4cbb288e73b578231fd03bd15b',10240,'{"containerd.io/uncompressed":"sha256:9fd96f104477ecd4e118a86df6af2e0642ecad4cbb288e73b578231fd03bd15b"}',1795499476876613410,1795499479221402265);
INSERT INTO "content" VALUES('default','sha256:b46948c0dbf0b68f6084aa1628e90ed06cf157b84f2fe0edd40ffdd4a85d850e',579,'{"containerd.io/gc.ref.content.config":"sha256:1f625e394bee9ef13b032d266c858d548dd62fa05a2a44fb66c2788474cd1cfd","containerd.io/gc.ref.content.l.0":"sha256:f8da48f1bb653a8a547f0a519ae5c9e38a1d287cf5cc1541d16ee967c1f23ab6","containerd.io/gc.ref.content.l.1":"sha256:9fd96f104477ecd4e118a86df6af2e0642ecad4cbb288e73b578231fd03bd15b"}',1795499476947156519,1795499476971708495);
INSERT INTO "content" VALUES('default','sha256:f8da48f1bb653a8a547f0a519ae5c9e38a1d287cf5cc1541d16ee967c1f23ab6',1031563,'{"containerd.io/uncompressed":"sha256:4e75f1db87274f57c8ed872fc410e32613d41d0de86788875472db064e983b26"}',1795499476846706439,1795499479104182016);
CREATE TABLE exits (
  ns TEXT NOT NULL, container TEXT NOT NULL, exec TEXT NOT NULL, pid INTEGER NOT NULL, status INTEGER NOT NULL,
  exited_at INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (ns, container, exec)) WITHOUT ROWID;
INSERT INTO "exits" VALUES('default','gone','',42,137,1700000000000000000,'shim died');
CREATE TABLE extensions (
  ns TEXT NOT NULL, container TEXT NOT NULL, name TEXT NOT NULL, url TEXT NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (ns, container, name));
CREATE TABLE images (
  ns TEXT NOT NULL, name TEXT NOT NULL, media_type TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
  annotations TEXT NOT NULL, labels TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  PRIMARY KEY (ns, name)) WITHOUT ROWID;
INSERT INTO "images" VALUES('default','docker.io/library/bb:1','application/vnd.oci.image.manifest.v1+json','sha256:b46948c0dbf0b68f6084aa1628e90ed06cf157b84f2fe0edd40ffdd4a85d850e',579,'{"io.containerd.image.name":"docker.io/library/bb:1","org.opencontainers.image.ref.name":"1"}','{}',1795499477007579324,1795499477007579324);
CREATE TABLE ingests (
  ns TEXT NOT NULL, ref TEXT NOT NULL, folder TEXT NOT NULL UNIQUE, total INTEGER NOT NULL, expected TEXT NOT NULL,
  started_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, expires_at INTEGER, PRIMARY KEY (ns, ref)) WITHOUT ROWID;
INSERT INTO "ingests" VALUES('default','a ref','00ff',10,'',1,1,NULL);
CREATE TABLE lease_resources (
  ns TEXT NOT NULL, lease TEXT NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (ns, lease, type, id)) WITHOUT ROWID;
INSERT INTO "lease_resources" VALUES('default','kept','ingests','a ref');
CREATE TABLE leases (
  ns TEXT NOT NULL, id TEXT NOT NULL, labels TEXT NOT NULL, created_at INTEGER NOT NULL, PRIMARY KEY (ns, id)) WITHOUT ROWID;
INSERT INTO "leases" VALUES('default','kept','{"containerd.io/gc.expire":"2126-11-25T05:51:16Z","kind":"test"}',1795499476532359167);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('uuid','e5c2d3df-61f9-4534-a2b5-ff6fbdd8b218');
INSERT INTO "meta" VALUES('version','1');
CREATE TABLE namespaces (ns TEXT PRIMARY KEY, labels TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
INSERT INTO "namespaces" VALUES('default','{"a":"b"}');
CREATE TABLE snapshots (
  snapshotter TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL, id INTEGER NOT NULL, parent TEXT NOT NULL,
  kind INTEGER NOT NULL, labels TEXT NOT NULL, size INTEGER NOT NULL DEFAULT 0, inodes INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY (snapshotter, ns, name)) WITHOUT ROWID;
INSERT INTO "snapshots" VALUES('overlayfs','default','c1',3,'sha256:58360517da2aff6d01afdf8075249f38de8d872639ec2996fcf48b80f30fd207',2,'{}',0,0,1795499479356345079,1795499479356345079);
INSERT INTO "snapshots" VALUES('overlayfs','default','sha256:4e75f1db87274f57c8ed872fc410e32613d41d0de86788875472db064e983b26',1,'',3,'{}',2043904,285,1795499477095993466,1795499479092934878);
INSERT INTO "snapshots" VALUES('overlayfs','default','sha256:58360517da2aff6d01afdf8075249f38de8d872639ec2996fcf48b80f30fd207',2,'sha256:4e75f1db87274f57c8ed872fc410e32613d41d0de86788875472db064e983b26',3,'{}',2023424,11,1795499479112109256,1795499479200006630);
CREATE UNIQUE INDEX snapshots_id ON snapshots (snapshotter, id);
CREATE INDEX snapshots_parent ON snapshots (snapshotter, ns, parent);
COMMIT;
