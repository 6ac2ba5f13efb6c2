//! What went wrong, as far as it decides what to do next, and how it is told.
//!
//! Servers' own words are never repeated: the codes are known, and each has a sentence here.

use std::time::Duration;

use redis::{ErrorKind, RedisError};

use super::address::Address;
use crate::error::{ReadError, ReadErrorKind};

/// What the server said, or that it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// No connection, or it broke, or nothing came: another one, or another server, may do.
    Lost,
    /// The key's slot is at another node, given as it is written in the reply.
    Moved(String),
    /// This key alone is, for the moment.
    Ask(String),
    /// Not now: loading, or a cluster or master that is down.
    NotReady,
    /// The server is a replica where a master was looked for.
    NotMaster,
    /// The key holds another kind of value.
    WrongType,
    /// There is no such key.
    NoSuchKey,
    /// There is no such consumer group.
    NoGroup,
    /// Anything else.
    Other,
}

/// A question that was not answered.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) reply: Reply,
    pub(crate) error: ReadError,
}

impl Fault {
    pub(crate) fn of(reply: Reply, kind: ReadErrorKind, message: impl Into<String>) -> Self {
        Self {
            reply,
            error: ReadError::new(kind, message),
        }
    }

    /// The connection failed for this reason.
    pub(super) fn lost(failed: &str, address: &Address, cause: &str) -> Self {
        Self::of(
            Reply::Lost,
            ReadErrorKind::Unreachable,
            format!("{failed}: {address}: {cause}"),
        )
    }

    /// Nothing came in time.
    pub(super) fn late(failed: &str, address: &Address, waited: Duration, what: &str) -> Self {
        Self::of(
            Reply::Lost,
            ReadErrorKind::Timeout,
            format!("{failed}: {address}: no {what} within {} ms", waited.as_millis()),
        )
    }

    /// Whether another connection may fare better.
    pub(super) fn is_lost(&self) -> bool {
        self.reply == Reply::Lost
    }

    /// What a failed command means.
    pub(super) fn from_redis(failed: &str, address: &Address, command: &str, error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io => Self::lost(failed, address, "the connection broke"),
            ErrorKind::Parse => Self::of(
                Reply::Lost,
                ReadErrorKind::BadAnswer,
                format!("{failed}: {address} does not speak the protocol of redis"),
            ),
            _ => Self::from_reply(
                address,
                command,
                error.code().unwrap_or_default(),
                error.detail().unwrap_or_default(),
            ),
        }
    }

    /// What an error reply means.
    pub(super) fn from_reply(address: &Address, command: &str, code: &str, detail: &str) -> Self {
        use ReadErrorKind::{BadAnswer, Denied, NotFound, Throttled, Unreachable};
        let detail = detail.to_ascii_lowercase();
        let (reply, kind, sentence) = match code {
            "MOVED" | "ASK" => {
                let node = detail
                    .split_ascii_whitespace()
                    .nth(1)
                    .unwrap_or_default()
                    .to_owned();
                let reply = if code == "MOVED" {
                    Reply::Moved(node)
                } else {
                    Reply::Ask(node)
                };
                (
                    reply,
                    Unreachable,
                    "is a node of a cluster and does not have this key (MOVED)",
                )
            }
            "NOAUTH" => (Reply::Other, Denied, "asks for a password (NOAUTH)"),
            "WRONGPASS" => (
                Reply::Other,
                Denied,
                "refused the username or password (WRONGPASS)",
            ),
            "DENIED" => (
                Reply::Other,
                Denied,
                "is in protected mode and lets in nobody without a password (DENIED)",
            ),
            "NOPERM" => {
                let message =
                    format!("redis at {address} does not let this user run {command} on this key (NOPERM)");
                return Self::of(Reply::Other, Denied, message);
            }
            "LOADING" => (Reply::NotReady, Unreachable, "is loading its data (LOADING)"),
            "CLUSTERDOWN" => (
                Reply::NotReady,
                Unreachable,
                "is in a cluster that is down (CLUSTERDOWN)",
            ),
            "TRYAGAIN" => (Reply::NotReady, Unreachable, "asks to try again (TRYAGAIN)"),
            "MASTERDOWN" => (
                Reply::NotReady,
                Unreachable,
                "is a replica without its master (MASTERDOWN)",
            ),
            "BUSY" => (Reply::Other, Unreachable, "is busy with a script (BUSY)"),
            "WRONGTYPE" => (
                Reply::WrongType,
                BadAnswer,
                "holds another kind of value under this key (WRONGTYPE)",
            ),
            "NOGROUP" => (
                Reply::NoGroup,
                NotFound,
                "has no such stream or consumer group (NOGROUP)",
            ),
            "ERR" if detail.contains("no such key") => (Reply::NoSuchKey, NotFound, "has no such key"),
            "ERR" if detail.contains("max number of clients") => (
                Reply::Lost,
                Throttled { retry_after: None },
                "has no room for another client",
            ),
            "ERR" if detail.contains("db index is out of range") => {
                (Reply::Other, NotFound, "has no database of this databaseIndex")
            }
            "ERR" if detail.contains("unknown command") => {
                let message = format!("redis at {address} does not know the command {command}");
                return Self::of(Reply::Other, BadAnswer, message);
            }
            _ => {
                let message = format!("redis at {address} answered {command} with an error");
                return Self::of(Reply::Other, BadAnswer, message);
            }
        };
        Self::of(reply, kind, format!("redis at {address} {sentence}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: &str, detail: &str) -> Fault {
        let address = Address::parse("redis:6379", true).unwrap();
        Fault::from_reply(&address, "LLEN", code, detail)
    }

    #[test]
    fn each_code_has_its_sentence_and_the_servers_words_are_not_repeated() {
        use ReadErrorKind::{BadAnswer, Denied, NotFound, Unreachable};
        for (code, kind, reply) in [
            ("NOAUTH", Denied, Reply::Other),
            ("WRONGPASS", Denied, Reply::Other),
            ("NOPERM", Denied, Reply::Other),
            ("DENIED", Denied, Reply::Other),
            ("LOADING", Unreachable, Reply::NotReady),
            ("CLUSTERDOWN", Unreachable, Reply::NotReady),
            ("MASTERDOWN", Unreachable, Reply::NotReady),
            ("WRONGTYPE", BadAnswer, Reply::WrongType),
            ("NOGROUP", NotFound, Reply::NoGroup),
            ("ERR", BadAnswer, Reply::Other),
            ("CANARY", BadAnswer, Reply::Other),
        ] {
            let fault = fault(code, "canary of the server's own");
            assert_eq!((fault.error.kind, &fault.reply), (kind, &reply), "{code}");
            let text = fault.error.message.to_lowercase();
            assert!(!text.contains("canary"), "{text}");
            assert!(text.contains("redis:6379"), "{text}");
        }
    }

    #[test]
    fn redirections_name_their_node() {
        assert_eq!(
            fault("MOVED", "3999 10.0.0.1:6381").reply,
            Reply::Moved("10.0.0.1:6381".to_owned())
        );
        assert_eq!(fault("ASK", "3999 :6381").reply, Reply::Ask(":6381".to_owned()));
        assert_eq!(fault("MOVED", "").reply, Reply::Moved(String::new()));
    }
}
