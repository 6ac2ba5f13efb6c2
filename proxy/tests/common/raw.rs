//! A client that says exactly what it is told to, and an endpoint that writes down what it is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATIENCE;

/// A connection.
pub struct Raw {
    pub stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header; several lines joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let values: Vec<&str> = lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until the end of a head; `None` if the connection ends before it begins.
    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                let head: Vec<u8> = self.read.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.more().await {
                assert!(
                    self.read.is_empty(),
                    "half a head: {:?}",
                    String::from_utf8_lossy(&self.read)
                );
                return None;
            }
        }
    }

    /// Reads what there is; `false` at the end.
    async fn more(&mut self) -> bool {
        let count = timeout(PATIENCE, self.stream.read_buf(&mut self.read))
            .await
            .expect("an answer in time");
        matches!(count, Ok(count) if count > 0)
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await, "the body broke off");
        }
        self.read.drain(..count).collect()
    }

    /// Fills a buffer with what comes next.
    pub async fn read_exactly(&mut self, buffer: &mut [u8]) {
        let bytes = self.exactly(buffer.len()).await;
        buffer.copy_from_slice(&bytes);
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.read, b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            }
            assert!(self.more().await, "the body broke off");
        }
    }

    /// The head of the next answer alone.
    pub async fn answer_head(&mut self) -> Option<Answer> {
        let head = self.head().await?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer {
            status,
            head,
            body: Vec::new(),
        })
    }

    /// The next answer; `None` if the connection ends instead.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        self.try_answer_to("GET").await
    }

    pub async fn try_answer_to(&mut self, method: &str) -> Option<Answer> {
        let mut answer = self.answer_head().await?;
        if method == "HEAD" || answer.status < 200 || [204, 304].contains(&answer.status) {
            return Some(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line().await, 16).unwrap();
                if size == 0 {
                    break;
                }
                answer.body.extend(self.exactly(size).await);
                self.line().await;
            }
            loop {
                let line = self.line().await;
                if line.is_empty() {
                    break;
                }
                answer.head.push_str(&format!("{line}\r\n"));
            }
        } else if let Some(length) = answer.header("content-length") {
            answer.body = self.exactly(length.parse().unwrap()).await;
        } else {
            while self.more().await {}
            answer.body = std::mem::take(&mut self.read);
        }
        Some(answer)
    }

    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer, not the end")
    }

    /// Whether the other side ends the connection, with nothing more to say.
    pub async fn is_closed(&mut self) -> bool {
        !self.more().await && self.read.is_empty()
    }

    /// Whether the other side has ended the connection, or does so soon.
    pub async fn is_closed_within(&mut self, long: Duration) -> bool {
        matches!(
            timeout(long, self.stream.read_buf(&mut self.read)).await,
            Ok(Ok(0) | Err(_))
        )
    }

    /// Whether the connection says nothing for so long, and does not end.
    pub async fn is_silent(&mut self, long: Duration) -> bool {
        self.read.is_empty() && timeout(long, self.stream.read_buf(&mut self.read)).await.is_err()
    }

    /// Everything until the end, or until nothing comes for so long.
    pub async fn rest(&mut self, quiet: Duration) -> Vec<u8> {
        while let Ok(Ok(1..)) = timeout(quiet, self.stream.read_buf(&mut self.read)).await {}
        std::mem::take(&mut self.read)
    }
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    let mut raw = Raw::connect(address).await;
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n"))
        .await;
    raw.answer().await
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// An endpoint that writes down every byte of every connection, and says one thing whenever a head has come.
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    serving: JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Recorder {
    pub async fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let all = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let all = Arc::clone(&all);
                tasks.spawn(async move {
                    let mut buffer = [0; 4096];
                    let mut answered = 0;
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        let heads = {
                            let mut all = all.lock().unwrap();
                            all[number].extend_from_slice(&buffer[..count]);
                            all[number]
                                .windows(4)
                                .filter(|window| window == b"\r\n\r\n")
                                .count()
                        };
                        if heads > answered {
                            answered = heads;
                            if stream.write_all(answer).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            seen,
            serving,
        }
    }

    /// What came, by connection; connections that said nothing are left out.
    pub fn seen(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }
}
