//! How many look-ups per second a table of routes makes: `cargo bench -p dormouse-core --bench routes`.

use std::hint::black_box;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use dormouse_core::routes::{
    BuildOptions, Candidate, HeaderRule, HeaderSet, HostPattern, PathPrefix, RouteKey, RouteTable, Rule,
};

const MANY: usize = 10_000;
/// Each case is looked up for so long, in so many rounds. The best one counts, as others are slowed by other programs; so
/// they are short.
const ROUND: Duration = Duration::from_millis(5);
const ROUNDS: u32 = 100;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct OneHeader;

impl HeaderSet for OneHeader {
    fn has(&self, name: &str, value: Option<&str>) -> bool {
        name == "x-tenant" && value.is_none_or(|value| value == "blue")
    }
}

/// Some routes, and requests for them in turn.
struct Case {
    name: &'static str,
    table: RouteTable<usize>,
    requests: Vec<(String, String)>,
}

impl Case {
    fn new(
        name: &'static str,
        routes: usize,
        rule: impl Fn(usize) -> Outcome<Rule>,
        request: impl Fn(usize) -> (String, String),
    ) -> Outcome<Self> {
        let candidates = (0..routes).map(|index| {
            Ok(Candidate {
                key: RouteKey::new("shop", format!("route-{index}")),
                uid: String::new(),
                created: 0,
                rules: vec![rule(index)?],
                value: index,
            })
        });
        let candidates = candidates.collect::<Outcome<Vec<_>>>()?;
        let (table, _) = RouteTable::build(candidates, BuildOptions::default());
        // As many as the routes, and in no order that the processor could guess.
        let requests = (0..routes).map(|index| request(index * 7919 % routes));
        Ok(Self {
            name,
            table,
            requests: requests.collect(),
        })
    }

    /// Look-ups per second.
    fn rate(&self) -> f64 {
        let round = |_| {
            let (start, mut count) = (Instant::now(), 0_u32);
            while start.elapsed() < ROUND {
                for (host, path) in self.requests.iter().cycle().take(1000.max(self.requests.len())) {
                    black_box(self.table.find(black_box(host), black_box(path), &OneHeader));
                    count += 1;
                }
            }
            f64::from(count) / start.elapsed().as_secs_f64()
        };
        (0..ROUNDS).map(round).fold(0.0, f64::max)
    }
}

fn exactly(host: &str, path: &str) -> Outcome<Rule> {
    let hosts = vec![HostPattern::parse(host)?];
    Ok(Rule::new(hosts, vec![PathPrefix::new(path)], Vec::new()))
}

fn cases() -> Outcome<Vec<Case>> {
    let host = |index: usize| format!("shop-{index}.example.com");
    let orders = || String::from("/api/orders/17");
    let single = |_| exactly("shop-0.example.com", "/");
    let headed = |index: usize| {
        let headers = match index % 2 {
            0 => vec![HeaderRule::new("x-tenant", Some("green"))?],
            _ => Vec::new(),
        };
        let path = if index.is_multiple_of(2) { "/api" } else { "/" };
        let hosts = vec![HostPattern::parse(&host(index / 2))?];
        Ok(Rule::new(hosts, vec![PathPrefix::new(path)], headers))
    };
    Ok(vec![
        Case::new("one host", 1, single, |index| (host(index), orders()))?,
        Case::new(
            "hosts",
            MANY,
            |index| exactly(&host(index), "/"),
            |index| (host(index), orders()),
        )?,
        Case::new(
            "hosts, asked for with a port and capitals",
            MANY,
            |index| exactly(&host(index), "/"),
            |index| (format!("Shop-{index}.example.com:8080"), orders()),
        )?,
        Case::new(
            "hosts, paths with escapes",
            MANY,
            |index| exactly(&host(index), "/"),
            |index| (host(index), "/api/orders%20of/17".into()),
        )?,
        Case::new("hosts, headers that do not match", MANY, headed, |index| {
            (host(index / 2), orders())
        })?,
        Case::new(
            "wildcards",
            MANY,
            |index| exactly(&format!("*.{}", host(index)), "/"),
            |index| (format!("www.{}", host(index)), orders()),
        )?,
        Case::new(
            "paths of one host",
            MANY,
            |index| exactly("example.com", &format!("/tenants/{index}")),
            |index| ("example.com".into(), format!("/tenants/{index}/api/orders")),
        )?,
        Case::new(
            "hosts, none that is asked for",
            MANY,
            |index| exactly(&host(index), "/"),
            |index| (format!("www.{}", host(index)), orders()),
        )?,
    ])
}

fn main() -> Outcome<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:>6}  {:44} {:>12} {:>8}",
        "routes", "", "look-ups/s", "ns each"
    )?;
    for case in cases()? {
        let rate = case.rate();
        let (routes, name) = (case.table.iter().len(), case.name);
        writeln!(out, "{routes:>6}  {name:44} {rate:>12.0} {:>8.0}", 1e9 / rate)?;
    }
    Ok(())
}
