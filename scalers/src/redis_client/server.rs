//! The servers of one or more triggers: which of them has a key, and the links to those in use.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::Topology;
use super::address::Address;
use super::connection::{Command, Credentials, Login};
use super::fault::{Fault, Reply};
use super::link::{Link, left};
use super::net::Dialer;
use crate::error::ReadErrorKind;

/// Links kept at the most. More would be a cluster that names ever new nodes.
const MAX_LINKS: usize = 1024;
/// Redirections followed for one question.
const MAX_REDIRECTS: usize = 5;
/// How long the sentinels' word on who is the master is taken for granted while the master answers.
const TRUST: Duration = Duration::from_secs(10);
/// Masters tried for one question.
const MAX_MASTERS: usize = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The parameters of a connection, checked.
pub(super) struct Settings {
    pub(super) topology: Topology,
    /// At least one.
    pub(super) addresses: Vec<Address>,
    pub(super) credentials: Credentials,
    pub(super) database: u32,
    pub(super) dialer: Dialer,
    /// Name that the sentinels have for the master.
    pub(super) master: String,
    pub(super) sentinel_credentials: Credentials,
}

/// Where a trigger's key was found last.
#[derive(Default)]
pub(super) struct Home(Mutex<Option<Address>>);

impl Home {
    fn get(&self) -> Option<Address> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, address: Option<Address>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    Data,
    Sentinel,
}

/// What the sentinels said.
struct Master {
    address: Address,
    asked: Instant,
}

/// See the module.
pub(super) struct Server {
    settings: Settings,
    links: Mutex<HashMap<(Role, Address), Arc<Link>>>,
    /// Place of the address that answered last; the next question begins there.
    good: AtomicUsize,
    // Held while the sentinels are asked, so that one asks for all.
    master: tokio::sync::Mutex<Option<Master>>,
}

impl Server {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            links: Mutex::default(),
            good: AtomicUsize::new(0),
            master: tokio::sync::Mutex::default(),
        }
    }

    /// Asks the server that has the key, whichever it is.
    pub(super) async fn ask(&self, home: &Home, command: &Command, until: Instant) -> Result<Value, Fault> {
        match self.settings.topology {
            Topology::Single => {
                let link = self.link(Role::Data, &self.settings.addresses[0]);
                link.ask(command, false, until).await
            }
            Topology::Cluster => self.ask_cluster(home, command, until).await,
            Topology::Sentinel => self.ask_master(command, until).await,
        }
    }

    fn link(&self, role: Role, address: &Address) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (role, address.clone());
        if let Some(link) = links.get(&key) {
            return Arc::clone(link);
        }
        if links.len() >= MAX_LINKS {
            links.clear();
        }
        let settings = &self.settings;
        let login = match (role, settings.topology) {
            (Role::Sentinel, _) => Login {
                credentials: settings.sentinel_credentials.clone(),
                ..Login::default()
            },
            (Role::Data, topology) => Login {
                credentials: settings.credentials.clone(),
                database: settings.database,
                must_lead: topology == Topology::Sentinel,
            },
        };
        let link = Link::new(
            address.clone(),
            settings.topology.failed(),
            settings.dialer.clone(),
            login,
        );
        let link = Arc::new(link);
        links.insert(key, Arc::clone(&link));
        link
    }

    fn forget(&self, role: Role, address: &Address) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.remove(&(role, address.clone()));
    }

    /// The addresses of the parameters, beginning this far after the one that answered last.
    fn seeds(&self, after: usize) -> Vec<(usize, Address)> {
        let mut seeds: Vec<_> = self.settings.addresses.iter().cloned().enumerate().collect();
        let good = (self.good.load(Ordering::Relaxed) + after) % seeds.len();
        seeds.rotate_left(good);
        seeds
    }

    async fn ask_cluster(&self, home: &Home, command: &Command, until: Instant) -> Result<Value, Fault> {
        let mut tried = Vec::new();
        let mut last = None;
        if let Some(known) = home.get() {
            match self
                .follow(home, known, command, share(until, 1), &mut tried)
                .await
            {
                Err(fault) if elsewhere(&fault) => last = Some(fault),
                answer => return answer,
            }
            home.set(None);
        }
        let seeds = self.seeds(0);
        let known = self.known_nodes();
        let further = known
            .into_iter()
            .filter(|node| seeds.iter().all(|(_, seed)| seed != node));
        let mut candidates: Vec<_> = seeds
            .iter()
            .cloned()
            .map(|(place, seed)| (Some(place), seed))
            .collect();
        candidates.extend(further.map(|node| (None, node)));
        let count = candidates.len();
        for (index, (place, candidate)) in candidates.into_iter().enumerate() {
            if left(until).is_zero() {
                break;
            }
            if tried.contains(&candidate) {
                continue;
            }
            let until = share(until, count - index - 1);
            match self.follow(home, candidate, command, until, &mut tried).await {
                // What a node said tells more than that another one is gone.
                Err(fault) if elsewhere(&fault) => {
                    if last.as_ref().is_none_or(Fault::is_lost) {
                        last = Some(fault);
                    }
                }
                answer => {
                    if let Some(place) = place {
                        self.good.store(place, Ordering::Relaxed);
                    }
                    return answer;
                }
            }
        }
        Err(last.unwrap_or_else(|| self.nobody("no node of the cluster answered in time")))
    }

    /// Nodes that redirections led to.
    fn known_nodes(&self) -> Vec<Address> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.keys().map(|(_, address)| address.clone()).collect()
    }

    /// Asks a node and whom it names, until one answers for the key. Nodes that cannot be reached go to `tried`, and
    /// those in there are not asked again.
    async fn follow(
        &self,
        home: &Home,
        from: Address,
        command: &Command,
        until: Instant,
        tried: &mut Vec<Address>,
    ) -> Result<Value, Fault> {
        let mut at = from;
        let mut asking = false;
        let mut redirects = 0;
        loop {
            let answer = self.link(Role::Data, &at).ask(command, asking, until).await;
            let fault = match answer {
                Ok(value) => {
                    if !asking {
                        home.set(Some(at));
                    }
                    return Ok(value);
                }
                Err(fault) => fault,
            };
            let (next, ask) = match &fault.reply {
                Reply::Moved(node) => (node, false),
                Reply::Ask(node) => (node, true),
                _ => {
                    if elsewhere(&fault) {
                        tried.push(at);
                    }
                    return Err(fault);
                }
            };
            redirects += 1;
            let next = redirected(&at, next).ok_or_else(|| {
                Fault::of(
                    Reply::Other,
                    ReadErrorKind::BadAnswer,
                    format!("redis at {at} leads to a node without an address"),
                )
            })?;
            if tried.contains(&next) {
                let cause = format!("the node that has the key, {next}, does not answer");
                return Err(Fault::lost(self.settings.topology.failed(), &at, &cause));
            }
            if redirects > MAX_REDIRECTS {
                return Err(Fault {
                    reply: Reply::NotReady,
                    ..fault
                });
            }
            (at, asking) = (next, ask);
        }
    }

    async fn ask_master(&self, command: &Command, until: Instant) -> Result<Value, Fault> {
        let mut newer_than = None;
        let mut tries = 0;
        loop {
            let master = self.master(newer_than, until).await?;
            tries += 1;
            let last = tries == MAX_MASTERS;
            let within = if last { until } else { share(until, 1) };
            let answer = self.link(Role::Data, &master).ask(command, false, within).await;
            let fault = match answer {
                Err(fault) if elsewhere(&fault) => fault,
                answer => return answer,
            };
            if last || left(until) <= RETRY_PAUSE {
                return Err(fault);
            }
            newer_than = Some(Instant::now());
            if tries > 1 || fault.reply != Reply::Lost {
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// The master's address, as the sentinels said after `newer_than`, or lately.
    async fn master(&self, newer_than: Option<Instant>, until: Instant) -> Result<Address, Fault> {
        let Ok(mut master) = timeout_at(until, self.master.lock()).await else {
            return Err(self.nobody("no sentinel answered in time"));
        };
        if let Some(known) = &*master {
            let enough = match newer_than {
                Some(then) => known.asked > then,
                None => known.asked.elapsed() < TRUST,
            };
            if enough {
                return Ok(known.address.clone());
            }
        }
        // A sentinel that names a dead master may not have heard of the new one yet; the next one may have.
        let after = usize::from(newer_than.is_some());
        let named = self.ask_sentinels(after, share(until, 1)).await;
        match (named, &mut *master) {
            (Ok(address), known) => {
                if let Some(old) = known.as_ref().filter(|old| old.address != address) {
                    self.forget(Role::Data, &old.address);
                }
                *known = Some(Master {
                    address: address.clone(),
                    asked: Instant::now(),
                });
                Ok(address)
            }
            // A master that still answers is one, whether or not the sentinels do.
            (Err(_), Some(known)) if newer_than.is_none() => {
                known.asked = Instant::now();
                Ok(known.address.clone())
            }
            (Err(fault), _) => Err(fault),
        }
    }

    async fn ask_sentinels(&self, after: usize, until: Instant) -> Result<Address, Fault> {
        let mut question = Command::named("SENTINEL get-master-addr-by-name");
        question.add(&self.settings.master);
        let mut last = None;
        let seeds = self.seeds(after);
        let count = seeds.len();
        for (index, (place, sentinel)) in seeds.into_iter().enumerate() {
            if left(until).is_zero() {
                break;
            }
            let until = share(until, count - index - 1);
            match self
                .link(Role::Sentinel, &sentinel)
                .ask(&question, false, until)
                .await
            {
                Ok(answer) => match master_of(&answer) {
                    Some(address) => {
                        self.good.store(place, Ordering::Relaxed);
                        return Ok(address);
                    }
                    None => {
                        last = Some(Fault::of(
                            Reply::Other,
                            ReadErrorKind::NotFound,
                            format!(
                                "redis sentinel at {sentinel} knows no master {:?}",
                                self.settings.master
                            ),
                        ));
                    }
                },
                Err(fault) => last = Some(fault),
            }
        }
        Err(last.unwrap_or_else(|| self.nobody("no sentinel answered in time")))
    }

    fn nobody(&self, cause: &str) -> Fault {
        let failed = self.settings.topology.failed();
        Fault::of(Reply::Lost, ReadErrorKind::Timeout, format!("{failed}: {cause}"))
    }
}

/// Until when one of `others + 1` may take: half of what is left, or all of it for the last one.
fn share(until: Instant, others: usize) -> Instant {
    if others == 0 {
        until
    } else {
        Instant::now() + left(until) / 2
    }
}

/// Whether another server may do better.
fn elsewhere(fault: &Fault) -> bool {
    matches!(fault.reply, Reply::Lost | Reply::NotReady | Reply::NotMaster)
}

/// The node of a redirection. One without a host is at the host that said so.
fn redirected(from: &Address, node: &str) -> Option<Address> {
    match node.strip_prefix(':') {
        Some(port) => Address::new(&from.host, port, from.printable),
        None => Address::parse(node, true).or_else(|| {
            // Redis writes IPv6 addresses without brackets.
            let (host, port) = node.rsplit_once(':')?;
            Address::new(host, port, true)
        }),
    }
}

fn master_of(answer: &Value) -> Option<Address> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else {
        return None;
    };
    Address::new(
        std::str::from_utf8(host).ok()?,
        std::str::from_utf8(port).ok()?,
        true,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_in_all_their_forms() {
        let from = Address::parse("seed:7000", true).unwrap();
        let to = |node| redirected(&from, node).map(|address| address.to_string());
        assert_eq!(to("10.0.0.1:6381").as_deref(), Some("10.0.0.1:6381"));
        assert_eq!(to("node-3.redis:6381").as_deref(), Some("node-3.redis:6381"));
        assert_eq!(to(":6381").as_deref(), Some("seed:6381"));
        assert_eq!(to("fd00::1:6381").as_deref(), Some("[fd00::1]:6381"));
        assert_eq!(to("[fd00::1]:6381").as_deref(), Some("[fd00::1]:6381"));
        assert_eq!(to("?:6381"), None);
        assert_eq!(to(""), None);
    }
}
