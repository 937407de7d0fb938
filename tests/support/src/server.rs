//! Real servers on this machine for tests: Debian's docker-registry, nginx, and one that cuts connections.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tool::{run, tool};

/// A server, stopped when dropped.
pub struct Server {
    process: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
    _directory: TempDir,
}

/// Files that openssl made: `ca.crt`, and `.crt` with `.key` of a server and a client.
pub struct Authority(pub TempDir);

impl Server {
    /// A registry. `tls` serves with the authority's certificate, and `clients` lets in only its clients; `users` is a file of htpasswd.
    pub fn registry(tls: Option<&Authority>, clients: bool, users: Option<&Path>) -> Option<Self> {
        let mut command = tool("docker-registry")?;
        let directory = TempDir::new().unwrap();
        let address = free_address();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: '{address}'\n",
            directory.path().join("storage").display()
        );
        if let Some(Authority(files)) = tls {
            let at = |name: &str| files.path().join(name).display().to_string();
            config += &format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                at("server.crt"),
                at("server.key")
            );
            if clients {
                config += &format!("    clientcas: [{}]\n", at("ca.crt"));
            }
        }
        if let Some(file) = users {
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        }
        let file = directory.path().join("config.yml");
        fs::write(&file, config).unwrap();
        command.arg("serve").arg(&file);
        Some(Self::start(command, address, directory))
    }

    /// An nginx whose one server has these directives.
    pub fn nginx(outside: &str, server: &str) -> Option<Self> {
        let mut command = tool("nginx")?;
        let directory = TempDir::new().unwrap();
        let address = free_address();
        let at = directory.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .collect();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\nevents {{}}\nhttp {{\n\
             access_log off; {temporary} {outside}\nserver {{ listen {address}; client_max_body_size 0;\n{server}\n}} }}\n"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        command.args(["-e", "stderr", "-p"]).arg(directory.path()).arg("-c").arg(&file);
        Some(Self::start(command, address, directory))
    }

    fn start(mut command: Command, address: String, directory: TempDir) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { process: command.spawn().unwrap(), address, _directory: directory };
        let began = Instant::now();
        while TcpStream::connect(&server.address).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Authority {
    /// An authority, a server on this machine and a client that it vouches for.
    pub fn new() -> Option<Self> {
        let files = TempDir::new().unwrap();
        let made = Self(files);
        made.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ])?;
        for (name, subject) in [
            ("server", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            ("client", "extendedKeyUsage=clientAuth"),
        ] {
            made.openssl(&[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.csr"),
            ])?;
            fs::write(made.0.path().join("extensions"), subject).unwrap();
            made.openssl(&[
                "x509",
                "-req",
                "-days",
                "2",
                "-in",
                &format!("{name}.csr"),
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-extfile",
                "extensions",
                "-out",
                &format!("{name}.crt"),
            ])?;
        }
        Some(made)
    }

    /// A server whose certificate is its own authority, as `openssl req -x509` makes it; for a name that is, or is not, this machine's.
    pub fn of_itself(name: &str) -> Option<Self> {
        let made = Self(TempDir::new().unwrap());
        let name = format!("subjectAltName={name}");
        made.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=itself",
            "-addext",
            &name,
            "-keyout",
            "server.key",
            "-out",
            "server.crt",
        ])?;
        made.copy("server.crt", &made.0.path().join("ca.crt"));
        Some(made)
    }

    fn openssl(&self, arguments: &[&str]) -> Option<()> {
        run(tool("openssl")?.args(arguments).current_dir(self.0.path()));
        Some(())
    }

    /// Copies one of the files.
    pub fn copy(&self, name: &str, to: &Path) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(self.0.path().join(name), to).unwrap();
    }
}

/// Passes connections on, and cuts the first `cuts` that have sent more than `after` bytes from the server. Never stops; it ends
/// with the test.
pub fn cutter(upstream: &str, after: usize, cuts: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (upstream, done) = (upstream.to_owned(), Arc::new(AtomicUsize::new(0)));
    let cut = Arc::clone(&done);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&upstream) else { continue };
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &from, &mut &to);
                let _ = to.shutdown(Shutdown::Both);
            });
            let done = Arc::clone(&cut);
            std::thread::spawn(move || {
                let (mut buffer, mut sent) = (vec![0; 4096], 0);
                while let Ok(count @ 1..) = (&server).read(&mut buffer) {
                    sent += count;
                    let one_more = |n: usize| (n < cuts).then_some(n + 1);
                    if sent > after
                        && done.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
                    {
                        break;
                    }
                    if (&client).write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    (address, done)
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
