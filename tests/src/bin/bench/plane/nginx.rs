//! nginx, as the application and as the peer that the interceptor is compared with.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::port;
use crate::process::{self, Process};

/// The bytes of each answer's body.
pub(crate) const ANSWER: usize = 100;

/// What an nginx does.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// Answers everything by itself.
    Application,
    /// Passes everything on to this address, and says where it came from as the interceptor does.
    Proxy(SocketAddr),
}

/// A running nginx; it ends with this value.
pub(crate) struct Nginx {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Nginx {
    /// One that answers everything with 100 bytes.
    pub(crate) async fn application(workers: usize) -> Result<Self> {
        Self::start(Role::Application, workers).await
    }

    /// One that passes everything on to `upstream`, over connections that stay.
    pub(crate) async fn proxy(workers: usize, upstream: SocketAddr) -> Result<Self> {
        Self::start(Role::Proxy(upstream), workers).await
    }

    async fn start(role: Role, workers: usize) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port()?));
        let dir = tempfile::tempdir().context("unable to create a directory for nginx")?;
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, configuration(role, workers, address)).context("unable to write nginx.conf")?;
        let child = Command::new("nginx")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("nginx cannot be started")?;
        let nginx = Self {
            child,
            address,
            _dir: dir,
        };
        super::until_listening(address).await.context("nginx")?;
        Ok(nginx)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its workers.
    pub(crate) fn workers(&self) -> Result<Vec<Process>> {
        process::children(Process(self.child.id().context("nginx has ended")?))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Workers outlive a master that is killed.
        for worker in self.workers().unwrap_or_default() {
            let worker = i32::try_from(worker.0)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(worker) = worker {
                let _ = rustix::process::kill_process(worker, rustix::process::Signal::KILL);
            }
        }
    }
}

fn configuration(role: Role, workers: usize, address: SocketAddr) -> String {
    let location = match role {
        Role::Application => format!("default_type text/plain; return 200 '{}';", "x".repeat(ANSWER)),
        Role::Proxy(_) => "proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ''; \
                           proxy_set_header Host $http_host; \
                           proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
                           proxy_set_header X-Forwarded-Host $http_host; \
                           proxy_set_header X-Forwarded-Proto $scheme;"
            .to_owned(),
    };
    let upstream = match role {
        Role::Application => String::new(),
        Role::Proxy(upstream) => {
            format!("upstream app {{ server {upstream}; keepalive 200; keepalive_requests 1000000000; }}")
        }
    };
    // The limit of files is the one that it was started with.
    format!(
        "daemon off; worker_processes {workers}; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 16000; }}
http {{
    access_log off; server_tokens off; keepalive_requests 1000000000; keepalive_timeout 600s;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    {upstream}
    server {{ listen {address} reuseport backlog=4096; location / {{ {location} }} }}
}}
"
    )
}
