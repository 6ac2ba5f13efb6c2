//! Redis: a single server, a cluster, and a master watched by sentinels.

mod cluster;
mod sentinel;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

pub use cluster::RedisCluster;
pub use sentinel::{MASTER_NAME, RedisSentinel, SENTINEL_PASSWORD};

/// The password of the user `default`, with which tests prepare a server: nobody else is let in without a user.
pub const ADMIN_PASSWORD: &str = "canary-admin-password";

const STARTED_WITHIN: Duration = Duration::from_secs(20);
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// Certificates of a server that speaks TLS, as files in PEM form.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The CA that clients' certificates must come from, where they are asked for.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whether clients must show a certificate.
    pub clients_must_authenticate: bool,
}

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Anyone may do anything, without a password.
    pub open: bool,
    /// TLS alone, instead of plain TCP.
    pub tls: Option<TlsFiles>,
    /// Further lines of its configuration file.
    pub lines: Vec<String>,
    /// Runs as a sentinel.
    pub sentinel: bool,
}

/// One `redis-server`. Its data live in memory alone: a restart forgets them, and all users.
pub struct RedisServer {
    address: SocketAddr,
    options: Options,
    directory: TempDir,
    child: Child,
}

impl RedisServer {
    /// A server on a free port of `ip`, which only [`ADMIN_PASSWORD`] opens.
    ///
    /// # Errors
    /// When it is not installed, or does not answer within 20 s.
    pub async fn start(ip: IpAddr) -> Result<Self> {
        Self::start_with(free_address(ip).await?, Options::default()).await
    }

    /// The same without any password.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_open(ip: IpAddr) -> Result<Self> {
        let options = Options {
            open: true,
            ..Options::default()
        };
        Self::start_with(free_address(ip).await?, options).await
    }

    /// A server with these options at this address.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(address: SocketAddr, options: Options) -> Result<Self> {
        let directory = tempfile::tempdir().context("no directory for redis-server")?;
        let file = directory.path().join("redis.conf");
        std::fs::write(&file, configuration(address, &options, directory.path()))
            .context("writing redis.conf")?;
        let child = spawn(directory.path(), options.sentinel)?;
        let mut this = Self {
            address,
            options,
            directory,
            child,
        };
        this.answers().await?;
        Ok(this)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs one command as the administrator, by `redis-cli`, and answers what it printed.
    ///
    /// # Errors
    /// When the server does not answer or answers with an error.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        let mut cli = self.cli();
        cli.arg("-e").args(arguments);
        let shown = arguments.first().copied().unwrap_or_default();
        let ended = tokio::time::timeout(ANSWERS_WITHIN, cli.output()).await;
        let ended = ended
            .with_context(|| format!("{shown} at {} was not answered in time", self.address))?
            .context("unable to start redis-cli; apt-get install redis-tools")?;
        let printed = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
        let complaint = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        ensure!(
            ended.status.success(),
            "{shown} at {}: {printed} {complaint}",
            self.address
        );
        Ok(printed)
    }

    fn cli(&self) -> Command {
        let mut cli = Command::new("redis-cli");
        cli.args(["-h", &self.address.ip().to_string()])
            .args(["-p", &self.address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if !self.options.open {
            cli.env("REDISCLI_AUTH", ADMIN_PASSWORD);
        }
        if let Some(tls) = &self.options.tls {
            cli.args(["--tls", "--insecure"]);
            cli.arg("--cert").arg(&tls.certificate);
            cli.arg("--key").arg(&tls.key);
        }
        cli
    }

    /// Appends this many items to a list.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn push(&self, list: &str, items: usize) -> Result<()> {
        let items: Vec<String> = (0..items).map(|item| item.to_string()).collect();
        for some in items.chunks(500) {
            let mut arguments = vec!["RPUSH", list];
            arguments.extend(some.iter().map(String::as_str));
            self.command(&arguments).await?;
        }
        Ok(())
    }

    /// Appends this many entries to a stream.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn add(&self, stream: &str, entries: usize) -> Result<()> {
        for _ in 0..entries {
            self.command(&["XADD", stream, "*", "field", "value"]).await?;
        }
        Ok(())
    }

    /// Creates a user, or starts one afresh, who has this password and may only read.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn set_user(&self, name: &str, password: &str) -> Result<()> {
        self.user(
            name,
            &[
                "reset",
                "on",
                &format!(">{password}"),
                "~*",
                "+@read",
                "+@connection",
            ],
        )
        .await
    }

    /// Changes a user by the rules of `ACL SETUSER`.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn user(&self, name: &str, rules: &[&str]) -> Result<()> {
        let mut arguments = vec!["ACL", "SETUSER", name];
        arguments.extend(rules);
        self.command(&arguments).await.map(drop)
    }

    /// Lets a user in by one more password.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn add_password(&self, name: &str, password: &str) -> Result<()> {
        self.user(name, &[&format!(">{password}")]).await
    }

    /// Takes a password from a user and ends all connections of the user: who has only the old one is out at once.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn revoke_password(&self, name: &str, password: &str) -> Result<()> {
        self.user(name, &[&format!("<{password}")]).await?;
        self.command(&["CLIENT", "KILL", "USER", name]).await.map(drop)
    }

    /// Takes a user away altogether. Redis ends the user's connections by itself.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn delete_user(&self, name: &str) -> Result<()> {
        self.command(&["ACL", "DELUSER", name]).await.map(drop)
    }

    /// How many connections a user has.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn connections_of(&self, name: &str) -> Result<usize> {
        let all = self.command(&["CLIENT", "LIST"]).await?;
        let user = format!(" user={name} ");
        Ok(all.lines().filter(|line| line.contains(&user)).count())
    }

    /// How often a command was run since the server started, such as `llen`; commands that were refused do not count.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn calls_of(&self, command: &str) -> Result<u64> {
        let all = self.command(&["INFO", "commandstats"]).await?;
        let prefix = format!("cmdstat_{command}:calls=");
        let line = all.lines().find_map(|line| line.strip_prefix(&prefix));
        let Some(rest) = line else { return Ok(0) };
        let number = rest.split(',').next().unwrap_or_default();
        number
            .parse()
            .with_context(|| format!("{command} was called {number:?} times"))
    }

    /// Kills the process.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("killing redis-server")
    }

    /// Starts it anew at its old address, empty.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.child = spawn(self.directory.path(), self.options.sentinel)?;
        self.answers().await
    }

    /// Stops the process where it is: its connections stay open, and nothing is answered.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.context("redis-server has ended")?;
        kill_process(pid, signal).context("signalling redis-server")
    }

    async fn answers(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("waiting for redis-server")? {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                bail!("redis-server ended with {status}:\n{log}");
            }
            match self.command(&["PING"]).await {
                Ok(answer) if answer == "PONG" => return Ok(()),
                last if began.elapsed() > STARTED_WITHIN => {
                    bail!("redis-server did not answer within {STARTED_WITHIN:?}: {last:?}")
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

fn spawn(directory: &Path, sentinel: bool) -> Result<Child> {
    let mut server = Command::new("redis-server");
    server.arg(directory.join("redis.conf"));
    if sentinel {
        server.arg("--sentinel");
    }
    server
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("unable to start redis-server; apt-get install --no-install-recommends redis-server")
}

fn configuration(address: SocketAddr, options: &Options, directory: &Path) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{line}");
    };
    line(format_args!("bind {}", address.ip()));
    line(format_args!("dir {}", directory.display()));
    line(format_args!("logfile {}", directory.join("log").display()));
    line(format_args!("protected-mode no"));
    if !options.sentinel {
        line(format_args!("save \"\""));
    }
    match &options.tls {
        None => line(format_args!("port {}", address.port())),
        Some(tls) => {
            line(format_args!("port 0"));
            line(format_args!("tls-port {}", address.port()));
            line(format_args!("tls-cert-file {}", tls.certificate.display()));
            line(format_args!("tls-key-file {}", tls.key.display()));
            line(format_args!("tls-ca-cert-file {}", tls.ca.display()));
            let clients = if tls.clients_must_authenticate {
                "yes"
            } else {
                "no"
            };
            line(format_args!("tls-auth-clients {clients}"));
        }
    }
    if !options.open {
        line(format_args!("requirepass {ADMIN_PASSWORD}"));
        if !options.sentinel {
            line(format_args!("masterauth {ADMIN_PASSWORD}"));
        }
    }
    for further in &options.lines {
        line(format_args!("{further}"));
    }
    text
}

/// An address of `ip` that nobody listens on.
///
/// # Errors
/// When the address is not this machine's.
pub async fn free_address(ip: IpAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((ip, 0))
        .await
        .with_context(|| format!("unable to listen on {ip}"))?;
    listener.local_addr().context("reading a free port")
}

/// Tries until it holds.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    loop {
        let last = holds().await;
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        if began.elapsed() > STARTED_WITHIN {
            bail!("waited {STARTED_WITHIN:?} for this, in vain: {what}; the last look: {last:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn a_users_password_is_changed_and_revoked() {
        let server = RedisServer::start(LOOPBACK).await.unwrap();
        server.push("orders", 1_200).await.unwrap();
        assert_eq!(server.command(&["LLEN", "orders"]).await.unwrap(), "1200");
        server.set_user("reader", "old").await.unwrap();
        server.add_password("reader", "new").await.unwrap();
        server.revoke_password("reader", "old").await.unwrap();
        server.command(&["AUTH", "reader", "new"]).await.unwrap();
        assert!(server.command(&["AUTH", "reader", "old"]).await.is_err());
        server.delete_user("reader").await.unwrap();
        assert!(server.command(&["AUTH", "reader", "new"]).await.is_err());
    }

    #[tokio::test]
    async fn a_server_comes_back_empty_at_its_address() {
        let mut server = RedisServer::start_open(LOOPBACK).await.unwrap();
        server.push("orders", 1).await.unwrap();
        let before = server.address();
        server.restart().await.unwrap();
        assert_eq!(server.address(), before);
        assert_eq!(server.command(&["LLEN", "orders"]).await.unwrap(), "0");
        assert_eq!(server.calls_of("llen").await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_key_of_a_cluster_is_moved() {
        let cluster = RedisCluster::start(LOOPBACK, false, false).await.unwrap();
        let from = cluster.owner_of("orders").await.unwrap();
        let to = (from + 1) % 3;
        cluster.nodes()[from].push("orders", 3).await.unwrap();
        cluster.begin_to_move("orders", from, to).await.unwrap();
        cluster.move_key("orders", from, to).await.unwrap();
        cluster.end_the_move("orders", to).await.unwrap();
        assert_eq!(cluster.owner_of("orders").await.unwrap(), to);
        let length = cluster.nodes()[to].command(&["LLEN", "orders"]).await.unwrap();
        assert_eq!(length, "3");
    }

    #[tokio::test]
    async fn sentinels_make_the_replica_the_master() {
        let mut all = RedisSentinel::start(LOOPBACK, true).await.unwrap();
        all.is_led_by(0).await.unwrap();
        all.server_mut(0).kill().await.unwrap();
        all.is_led_by(1).await.unwrap();
    }
}
