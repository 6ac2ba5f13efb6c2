//! The access log: one line of JSON for each request that is done.
//!
//! Data threads never wait for it: they hand over whole lines, and where the reader of the log is too slow, lines are lost and
//! counted.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// Lines that may wait to be written.
const WAITING: usize = 16 * 1024;
const BUFFER: usize = 64 * 1024;

/// Where lines go. A cheap handle; its thread ends with the last of them.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Everything before this is to be written, and then this dropped.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Starts a thread that writes to `writer`.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&waiting, writer, &counted))?;
        Ok(Self { lines, lost })
    }

    /// Lines that could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until every line so far is written, for at most `at_most`. Blocks its thread.
    pub fn flush(&self, at_most: Duration) {
        let (done, is_done) = sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            is_done.recv_timeout(at_most).ok();
        }
    }

    /// Hands over an entry, or counts it as lost.
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        let mut line = Vec::with_capacity(512);
        let written = serde_json::to_writer(&mut line, entry);
        line.push(b'\n');
        if written.is_err() || self.lines.try_send(Message::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes until all handles are gone. What is written is flushed whenever nothing waits.
fn write_lines(waiting: &Receiver<Message>, writer: impl Write, lost: &AtomicU64) {
    let mut writer = BufWriter::with_capacity(BUFFER, writer);
    let mut next = waiting.recv().ok();
    while let Some(message) = next {
        match message {
            Message::Line(line) => {
                if writer.write_all(&line).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => {
                writer.flush().ok();
                drop(done);
            }
        }
        next = waiting.try_recv().ok().or_else(|| {
            writer.flush().ok();
            waiting.recv().ok()
        });
    }
}

/// One request, as its line says it. Of the target only the path: a query may hold what no log should.
#[derive(Debug, Serialize)]
pub(crate) struct Entry<'e> {
    /// When it was done, in milliseconds since 1970.
    #[serde(serialize_with = "millis")]
    pub(crate) time: SystemTime,
    pub(crate) client: std::net::SocketAddr,
    pub(crate) method: &'e str,
    pub(crate) host: &'e str,
    pub(crate) path: &'e str,
    pub(crate) protocol: &'static str,
    pub(crate) status: u16,
    /// Of the response's body.
    pub(crate) bytes: u64,
    #[serde(serialize_with = "seconds")]
    pub(crate) duration: Duration,
    /// How long it waited for an endpoint.
    #[serde(serialize_with = "seconds")]
    pub(crate) held: Duration,
    pub(crate) route: Option<&'e str>,
    /// Who answered.
    pub(crate) endpoint: Option<std::net::SocketAddr>,
    /// Why there was no answer.
    pub(crate) failure: Option<&'e str>,
    pub(crate) user_agent: &'e str,
    pub(crate) trace: Option<&'e str>,
}

fn millis<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_u64(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A log that can be read, and stopped for as long as its lock is held.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn entry(path: &str) -> Entry<'_> {
        Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(7),
            client: "10.0.0.1:7".parse().unwrap(),
            method: "GET",
            host: "web",
            path,
            protocol: "HTTP/1.1",
            status: 200,
            bytes: 2,
            duration: Duration::from_millis(500),
            held: Duration::ZERO,
            route: Some("shop/web"),
            endpoint: None,
            failure: None,
            user_agent: "a \"b\"\n",
            trace: None,
        }
    }

    #[test]
    fn a_line_is_one_object_whatever_the_client_sent() {
        let paper = Paper::default();
        let log = AccessLog::to(paper.clone()).unwrap();
        log.write(&entry("/\u{1b}[2J\n{\""));
        log.flush(Duration::from_secs(20));
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["time"], 7);
        assert_eq!(line["user_agent"], "a \"b\"\n");
        assert_eq!(line["duration"], 0.5);
    }

    #[test]
    fn a_reader_that_is_too_slow_loses_lines_and_stops_nobody() {
        let paper = Paper::default();
        let log = AccessLog::to(paper.clone()).unwrap();
        let stopped = paper.0.lock().unwrap();
        // More than may wait and than the buffers hold.
        let path = "/".repeat(1000);
        for _ in 0..WAITING + 200 {
            log.write(&entry(&path));
        }
        assert!((1..=200).contains(&log.lost()), "{}", log.lost());
        drop(stopped);
    }
}
