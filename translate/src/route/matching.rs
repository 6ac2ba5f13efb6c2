//! Rules: which requests.

use dormouse_api::RoutingRule;
use dormouse_core::routes::{HeaderRule, HostPattern, MOST_MATCHES, PathPrefix, Rule};

use super::faults::Faults;

/// The rules at the field `at`.
pub(super) fn rules(at: &str, specs: &[RoutingRule], faults: &mut Faults) -> Vec<Rule> {
    let rule = |(index, spec)| rule(&format!("{at}[{index}]"), spec, faults);
    specs.iter().enumerate().map(rule).collect()
}

fn rule(at: &str, spec: &RoutingRule, faults: &mut Faults) -> Rule {
    let mut hosts = Vec::with_capacity(spec.hosts.len());
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format_args!("{at}.hosts[{index}]");
        hosts.extend(faults.check(field, host, HostPattern::parse(host)));
    }
    let mut headers = Vec::with_capacity(spec.headers.len());
    for (index, header) in spec.headers.iter().enumerate() {
        let rule = HeaderRule::new(&header.name, header.value.as_deref());
        let field = format_args!("{at}.headers[{index}].name");
        headers.extend(faults.check(field, &header.name, rule));
    }
    let paths = spec.paths.iter().map(|path| PathPrefix::new(&path.value));
    Rule::new(hosts, paths.collect(), headers)
}

/// Holds the rules of a route to what a table can bear.
pub(super) fn keep_small(rules: &[Rule], faults: &mut Faults) {
    let matches = rules
        .iter()
        .map(Rule::matches_count)
        .fold(0, usize::saturating_add);
    if matches > MOST_MATCHES {
        faults.add(format!(
            "spec.rules come to {matches} pairs of host and path: at most {MOST_MATCHES} are accepted"
        ));
    }
}
