//! Logs: what is written, how, and how loud.
//!
//! The options are KEDA's `--zap-*` ones, so that a deployment's arguments keep their meaning. Logs go to standard error.
//! Libraries speak one level lower than Dormouse itself: their info and debug records are for their authors, and some of
//! them would carry request bodies.

mod quiet;

use std::{fmt, io, str::FromStr};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use quiet::Quieted;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// Something went wrong and was survived.
    Warn,
    /// What happened, without any need to act. The default.
    Info,
    /// How it happened.
    Debug,
    /// Every step.
    Trace,
}

impl LogLevel {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The filter in force at this level. The Kubernetes client logs the text of an answer it cannot decode at `warn`:
    /// that text may be a Secret, so this module of it never speaks below `error`.
    fn filter(self) -> EnvFilter {
        let libraries = match self {
            Self::Error => "error",
            Self::Warn | Self::Info => "warn",
            Self::Debug | Self::Trace => "info",
        };
        EnvFilter::new(format!(
            "{libraries},dormouse={},kube_client=error,kube_runtime=error",
            self.name()
        ))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LogLevel {
    type Err = TelemetryError;

    /// Accepts what `--zap-log-level` accepts: a name, or an integer from 1 (debug) upwards for ever more detail.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "error" | "panic" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            number => match number.parse::<u8>() {
                Ok(1) => Ok(Self::Debug),
                Ok(2..) => Ok(Self::Trace),
                _ => Err(TelemetryError::UnknownLevel {
                    given: number.chars().take(40).collect(),
                }),
            },
        }
    }
}

/// The form of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoder {
    /// One line of text for people.
    Console,
    /// One JSON object per line.
    Json,
}

impl FromStr for Encoder {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "console" => Ok(Self::Console),
            "json" => Ok(Self::Json),
            _ => Err(TelemetryError::UnknownEncoder {
                given: text.chars().take(40).collect(),
            }),
        }
    }
}

/// The form of a record's time, always UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeEncoding {
    /// Seconds since 1970, with a fraction.
    Epoch,
    /// Milliseconds since 1970, with a fraction.
    Millis,
    /// Nanoseconds since 1970.
    Nano,
    /// `2026-11-21T08:00:00.000Z`.
    Iso8601,
    /// `2026-11-21T08:00:00Z`.
    Rfc3339,
    /// RFC 3339 with nine digits of fraction.
    Rfc3339Nano,
}

impl FromStr for TimeEncoding {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "epoch" => Ok(Self::Epoch),
            "millis" => Ok(Self::Millis),
            "nano" => Ok(Self::Nano),
            "iso8601" => Ok(Self::Iso8601),
            "rfc3339" => Ok(Self::Rfc3339),
            "rfc3339nano" => Ok(Self::Rfc3339Nano),
            _ => Err(TelemetryError::UnknownTimeEncoding {
                given: text.chars().take(40).collect(),
            }),
        }
    }
}

impl FormatTime for TimeEncoding {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let now = jiff::Timestamp::now();
        match self {
            Self::Epoch => write!(w, "{:.6}", now.as_nanosecond() as f64 / 1e9),
            Self::Millis => write!(w, "{:.3}", now.as_nanosecond() as f64 / 1e6),
            Self::Nano => write!(w, "{}", now.as_nanosecond()),
            Self::Iso8601 => write!(w, "{now:.3}"),
            Self::Rfc3339 => write!(w, "{now:.0}"),
            Self::Rfc3339Nano => write!(w, "{now:.9}"),
        }
    }
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not a log level.
    #[error("unknown log level {given:?}: accepted are error, warn, info, debug, trace or an integer from 1")]
    UnknownLevel {
        /// What was given, cut to 40 characters.
        given: String,
    },
    /// Not an encoder.
    #[error("unknown log encoder {given:?}: accepted are console and json")]
    UnknownEncoder {
        /// What was given, cut to 40 characters.
        given: String,
    },
    /// Not a time encoding.
    #[error(
        "unknown time encoding {given:?}: accepted are epoch, millis, nano, iso8601, rfc3339 and rfc3339nano"
    )]
    UnknownTimeEncoding {
        /// What was given, cut to 40 characters.
        given: String,
    },
    /// Another subscriber was installed before.
    #[error("unable to install the logger: one is installed already")]
    AlreadyInstalled,
    /// The logger whose level was to change is gone.
    #[error("unable to change the log level: the logger is gone")]
    Gone,
}

/// How the process logs; the defaults are KEDA's.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// `--zap-log-level`.
    pub level: LogLevel,
    /// `--zap-encoder`.
    pub encoder: Encoder,
    /// `--zap-time-encoding`.
    pub time: TimeEncoding,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            encoder: Encoder::Console,
            time: TimeEncoding::Rfc3339,
        }
    }
}

/// A handle on the installed logger.
#[derive(Debug, Clone)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Telemetry {
    /// Changes the level of the running process.
    ///
    /// # Errors
    /// [`TelemetryError::Gone`] when the logger no longer exists.
    pub fn set_level(&self, level: LogLevel) -> Result<(), TelemetryError> {
        self.filter
            .reload(level.filter())
            .map_err(|_| TelemetryError::Gone)
    }

    /// A logger to standard error that is not installed, for a caller that scopes it to a thread or only wants the handle.
    #[must_use]
    pub fn detached(options: LogOptions) -> (impl Subscriber + Send + Sync, Self) {
        build(options, io::stderr)
    }
}

/// Installs the process-wide logger, writing to standard error.
///
/// # Errors
/// [`TelemetryError::AlreadyInstalled`] when the process has a logger.
pub fn init(options: LogOptions) -> Result<Telemetry, TelemetryError> {
    let (subscriber, telemetry) = Telemetry::detached(options);
    subscriber
        .try_init()
        .map_err(|_| TelemetryError::AlreadyInstalled)?;
    Ok(telemetry)
}

fn build<W>(options: LogOptions, writer: W) -> (impl Subscriber + Send + Sync, Telemetry)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(options.level.filter());
    let layer = tracing_subscriber::fmt::layer()
        .with_timer(options.time)
        .with_writer(writer);
    let layer = match options.encoder {
        Encoder::Console => layer
            .with_ansi(false)
            .map_event_format(|format| Quieted::new(format, false))
            .boxed(),
        Encoder::Json => layer
            .json()
            .flatten_event(true)
            .map_event_format(|format| Quieted::new(format, true))
            .boxed(),
    };
    // The filter stands innermost so that its handle does not depend on the encoder's type.
    (
        tracing_subscriber::registry().with(filter).with(layer),
        Telemetry { filter: handle },
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    fn logged(options: LogOptions, log: impl FnOnce(&Telemetry)) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let (subscriber, telemetry) = build(options, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || log(&telemetry));
        buffer.take()
    }

    #[test]
    fn levels_are_read_as_keda_reads_them() {
        let read = |text: &str| text.parse::<LogLevel>().ok();
        assert_eq!(read("debug"), Some(LogLevel::Debug));
        assert_eq!(read("info"), Some(LogLevel::Info));
        assert_eq!(read("error"), Some(LogLevel::Error));
        assert_eq!(read("1"), Some(LogLevel::Debug));
        assert_eq!(read("5"), Some(LogLevel::Trace));
        for wrong in ["0", "-1", "INFO", "verbose", ""] {
            assert_eq!(read(wrong), None, "{wrong:?} was accepted");
        }
        let error = "loud".parse::<LogLevel>().unwrap_err().to_string();
        assert!(
            error.contains("\"loud\"") && error.contains("error, warn, info"),
            "{error}"
        );
    }

    #[test]
    fn the_level_holds_and_can_be_changed_while_running() {
        let text = logged(LogOptions::default(), |telemetry| {
            tracing::debug!("before");
            telemetry.set_level(LogLevel::Debug).unwrap();
            tracing::debug!("after");
        });
        assert!(!text.contains("before") && text.contains("after"), "{text}");
    }

    #[test]
    fn a_client_never_logs_what_it_could_not_decode() {
        let options = LogOptions {
            level: LogLevel::Trace,
            ..LogOptions::default()
        };
        let text = logged(options, |_| {
            tracing::warn!(target: "kube_client::client", "{{\"password\":\"canary\"}}");
            tracing::info!(target: "hyper_util::client", "spoken");
        });
        assert!(!text.contains("canary") && text.contains("spoken"), "{text}");
    }

    #[test]
    fn a_failure_that_lasts_is_told_once_and_an_outage_once_for_all() {
        let text = logged(LogOptions::default(), |_| {
            for attempt in 0..1000 {
                tracing::warn!(object = "a/b", attempt, "target cannot be read");
                tracing::warn!(object = "a/c", attempt, "target cannot be read");
                let object = format!("many/{attempt}");
                tracing::warn!(object, outage = "kubernetes-api", "not written");
                tracing::error!(outage = "kubernetes-api", "a watch is broken");
                tracing::info!(attempt, "a change");
            }
        });
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        assert_eq!(count("target cannot be read"), 2, "{text}");
        assert_eq!(count("outage"), 1, "{text}");
        assert_eq!(count("a change"), 1000);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "there is no runtime here to block")]
    fn what_was_left_out_is_counted_in_the_next_record() {
        for (encoder, counted) in [
            (Encoder::Console, " suppressed=150\n"),
            (Encoder::Json, ",\"suppressed\":150}\n"),
        ] {
            let options = LogOptions {
                encoder,
                ..LogOptions::default()
            };
            // More objects than may be told of at once; a second later there is room for two more.
            let text = logged(options, |_| {
                for number in 0..250 {
                    let object = format!("many/{number}");
                    tracing::warn!(object, "trigger cannot be read");
                }
                std::thread::sleep(std::time::Duration::from_millis(600));
                tracing::warn!(object = "one/more", "trigger cannot be read");
            });
            assert_eq!(text.lines().count(), 101, "{text}");
            assert!(text.ends_with(counted), "{text}");
        }
    }

    #[test]
    fn json_is_one_object_per_line_with_the_time_as_asked() {
        let options = LogOptions {
            encoder: Encoder::Json,
            ..LogOptions::default()
        };
        let text = logged(options, |_| tracing::info!(object = "cap/full", "scaled"));
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.starts_with("{\"timestamp\":\"20") && text.trim_end().ends_with('}'),
            "{text}"
        );
        assert!(
            text.contains("\"message\":\"scaled\"") && text.contains("\"object\":\"cap/full\""),
            "{text}"
        );
        let time = &text[14..34];
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    }
}
