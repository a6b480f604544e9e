//! SeaweedFS as a real S3 server: one for each test process, on free ports, in a directory that goes away again.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests")]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use verger_kopia::storage::secret::Secret;
use verger_kopia::storage::settings::{S3Credentials, S3Settings};

pub const ACCESS_KEY: &str = "verger-test";
pub const SECRET_KEY: &str = "verger-test-secret";
/// A plain bucket.
pub const BUCKET: &str = "verger-plain";
/// A bucket with versions and object locks.
pub const LOCKED_BUCKET: &str = "verger-locked";

const CONFIG: &str = r#"{"identities":[{"name":"test","credentials":[{"accessKey":"verger-test","secretKey":"verger-test-secret"}],
"actions":["Admin","Read","Write","List","Tagging"]},{"name":"reader","credentials":[{"accessKey":"verger-reader",
"secretKey":"verger-reader-secret"}],"actions":["Read:verger-plain","List:verger-plain"]}]}"#;

/// A running server; ends with the value.
pub struct Weed {
    program: PathBuf,
    child: Option<Child>,
    ports: Vec<u16>,
    directory: tempfile::TempDir,
}

/// `VERGER_TEST_WEED`, or `weed` on PATH. `None`: says that the test is skipped, or fails where S3 is required.
pub fn find() -> Option<PathBuf> {
    let given = std::env::var_os("VERGER_TEST_WEED").map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found =
        given.or_else(|| std::env::split_paths(&paths).map(|path| path.join("weed")).find(|path| path.is_file()));
    if found.is_none() {
        assert!(std::env::var_os("VERGER_REQUIRE_S3").is_none_or(|v| v != "1"), "VERGER_REQUIRE_S3=1 and no weed");
        eprintln!("SKIPPED: no weed on PATH or at VERGER_TEST_WEED; S3 is not tested against a real server");
    }
    found
}

impl Weed {
    /// Starts a server with both buckets; plain HTTP.
    pub fn start() -> Option<Self> {
        let program = find()?;
        // Another process may take a free port before the server does.
        for _ in 0..3 {
            if let Some(server) = Self::try_start(&program) {
                return Some(server);
            }
        }
        panic!("weed does not start");
    }

    fn try_start(program: &Path) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("s3.json"), CONFIG).unwrap();
        let mut server = Self { program: program.to_owned(), child: None, ports: free_ports(10), directory };
        if server.launch() {
            return Some(server);
        }
        let log = std::fs::read_to_string(server.directory.path().join("log"));
        eprintln!("weed did not come up:\n{}", log.unwrap_or_default());
        None
    }

    fn launch(&mut self) -> bool {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let mut command = Command::new(&self.program);
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-filer", "-master.telemetry=false"]);
        command.args(["-volume.max=100", "-master.volumeSizeLimitMB=256", "-s3.allowDeleteBucketNotEmpty=true"]);
        // Its fixed default port would keep two servers apart.
        command.args(["-s3.port.lance=0"]);
        command.arg(format!("-dir={}", self.directory.path().display()));
        command.arg(format!("-s3.config={}", path("s3.json")));
        command.arg(format!("-filer.localSocket={}", path("filer.sock")));
        let flags = [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port",
            "s3.port.grpc",
            "s3.port.iceberg",
        ];
        for (flag, port) in flags.iter().zip(&self.ports) {
            command.arg(format!("-{flag}={port}"));
        }
        let log = std::fs::File::options().create(true).append(true).open(path("log")).unwrap();
        let folder = self.directory.path();
        command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        self.wait_for_buckets()
    }

    /// As kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Again, with what it had.
    pub fn restart(&mut self) {
        assert!(self.child.is_none() && self.launch(), "weed does not start again");
    }

    fn wait_for_buckets(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = self.client();
        while Instant::now() < deadline {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            let up = TcpStream::connect(("127.0.0.1", self.port())).is_ok() && runtime.block_on(make_buckets(&client));
            if up {
                return true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }

    /// The SDK's own client, for what the store under test must not do.
    pub fn client(&self) -> Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url(self.endpoint())
            .region(Region::new("us-east-1"))
            .force_path_style(true)
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
            .build();
        Client::from_conf(config)
    }

    fn port(&self) -> u16 {
        self.ports[6]
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// Settings with full rights.
    pub fn settings(&self) -> S3Settings {
        self.settings_as(ACCESS_KEY, SECRET_KEY)
    }

    pub fn settings_as(&self, access_key: &str, secret_key: &str) -> S3Settings {
        S3Settings {
            endpoint: Some(self.endpoint()),
            region: Some("us-east-1".to_owned()),
            credentials: S3Credentials::Static {
                access_key: access_key.to_owned(),
                secret_key: Secret::new(secret_key),
                session_token: None,
            },
            ..S3Settings::default()
        }
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn make_buckets(client: &Client) -> bool {
    let plain = client.create_bucket().bucket(BUCKET).send().await;
    let locked = client.create_bucket().bucket(LOCKED_BUCKET).object_lock_enabled_for_bucket(true).send().await;
    let made = |code: Option<&str>| matches!(code, Some("BucketAlreadyExists" | "BucketAlreadyOwnedByYou"));
    let code = |error: &aws_sdk_s3::Error| aws_sdk_s3::error::ProvideErrorMetadata::code(error).map(str::to_owned);
    let plain = plain.map_err(aws_sdk_s3::Error::from);
    let locked = locked.map_err(aws_sdk_s3::Error::from);
    let there = plain.as_ref().map_or_else(|error| made(code(error).as_deref()), |_| true)
        && locked.as_ref().map_or_else(|error| made(code(error).as_deref()), |_| true);
    // The volume server joins last.
    there && client.put_object().bucket(BUCKET).key("up").body("up".as_bytes().to_vec().into()).send().await.is_ok()
}

fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
