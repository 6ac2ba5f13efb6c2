//! What keeps applications from starting, as operators say it.

use std::time::Duration;

use dormouse_core::routes::RouteKey;
use dormouse_proxy::Proxy;
use dormouse_wire::demand::Obstacle;

/// How long what was said counts: the operator says it again well before that.
const COUNTS: Duration = Duration::from_secs(60);
/// Characters of it that clients are shown at most.
const LONGEST: usize = 300;

/// Lets those who wait in vain be told.
pub(super) fn learn(proxy: &Proxy, obstacle: Obstacle) {
    let Some(route) = obstacle.route else {
        return;
    };
    let what = presentable(&obstacle.what);
    let what = (!what.is_empty()).then_some(what.as_str());
    proxy.set_obstacle(&RouteKey::new(route.namespace, route.name), what, COUNTS);
}

/// One line of printable characters, and not too many.
fn presentable(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let line: String = printable.take(LONGEST).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_shown_one_line_that_is_not_too_long() {
        assert_eq!(
            presentable(" its image\r\ncannot be pulled\n"),
            "its image  cannot be pulled"
        );
        assert_eq!(presentable(&"\u{e9}".repeat(1000)).chars().count(), LONGEST);
    }
}
