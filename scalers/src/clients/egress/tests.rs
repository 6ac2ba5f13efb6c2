use std::sync::Mutex;

use tokio::net::TcpListener;

use super::*;

const API_SERVER: &str = "10.10.0.1:6443";

fn egress(allowed: &[&str], lookup: impl Fn(&str) -> Vec<&'static str> + Send + Sync + 'static) -> Egress {
    let egress = Egress::new(EgressRules {
        allowed: allowed.iter().map(|network| network.parse().unwrap()).collect(),
        lookup: Arc::new(move |host| {
            let found = lookup(&host).iter().map(|text| text.parse().unwrap()).collect();
            async move { Ok(found) }.boxed()
        }),
    });
    egress.set_api_servers(vec![
        API_SERVER.parse().unwrap(),
        "10.96.0.1:443".parse().unwrap(),
    ]);
    egress
}

fn class(text: &str) -> Option<&'static str> {
    class_of(innermost(text.parse().unwrap()))
}

#[test]
fn every_form_of_a_refused_address() {
    for loopback in [
        "127.0.0.1",
        "127.255.1.2",
        "0.0.0.0",
        "0.1.2.3",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
    ] {
        assert_eq!(class(loopback), Some("a loopback address"), "{loopback}");
    }
    for link_local in [
        "169.254.169.254",
        "169.254.170.23",
        "fe80::1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
    ] {
        assert_eq!(class(link_local), Some("a link-local address"), "{link_local}");
    }
    for metadata in [
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "::ffff:100.100.100.200",
    ] {
        assert_eq!(
            class(metadata),
            Some("a metadata service's address"),
            "{metadata}"
        );
    }
    for fine in [
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.9",
        "8.8.8.8",
        "100.64.0.1",
        "fd12:3456::1",
        "2606:4700::1111",
        "::ffff:10.0.0.1",
    ] {
        assert_eq!(class(fine), None, "{fine}");
    }
}

#[test]
fn metadata_services_are_written_right() {
    for network in METADATA_SERVICES {
        network.parse::<IpNet>().unwrap();
    }
    for (network, _) in CARRIERS {
        network.parse::<Ipv6Net>().unwrap();
    }
}

#[test]
fn an_api_server_is_its_address_and_its_port() {
    let egress = egress(&[], |_| Vec::new());
    let address: IpAddr = "10.10.0.1".parse().unwrap();
    let mapped: IpAddr = "::ffff:10.10.0.1".parse().unwrap();
    for (address, port, refused) in [
        (address, For::Port(6443), true),
        (mapped, For::Port(6443), true),
        (address, For::Port(5000), false),
        (address, For::ApiServerPorts, true),
        (address, For::OtherPorts, false),
        ("10.10.0.2".parse().unwrap(), For::Port(6443), false),
    ] {
        assert_eq!(
            egress.judge("node", address, port).is_err(),
            refused,
            "{address} {port:?}"
        );
    }
    assert!(egress.is_api_port(443) && egress.is_api_port(6443) && !egress.is_api_port(5000));
}

#[tokio::test]
async fn a_flag_allows_what_it_names_and_no_more() {
    let egress = egress(&["169.254.169.254/32", "10.10.0.1/32"], |_| Vec::new());
    let judge = |text: &str, port| egress.judge(text, text.parse().unwrap(), port).is_ok();
    assert!(judge("169.254.169.254", For::Port(80)));
    assert!(!judge("169.254.170.2", For::Port(80)));
    assert!(judge("10.10.0.1", For::Port(6443)));
    assert!(!judge("10.96.0.1", For::Port(443)));
}

#[tokio::test]
async fn refused_addresses_of_a_name_are_left_out() {
    let egress = egress(&[], |host| match host {
        "mixed" => vec!["169.254.169.254", "10.0.0.7", "::1"],
        _ => vec!["127.0.0.1"],
    });
    let mixed = egress.addresses("mixed", For::Port(80)).await.ok().unwrap();
    assert_eq!(mixed, ["10.0.0.7".parse::<IpAddr>().unwrap()]);
    let error = egress.connect("inside", 80).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::EgressDenied);
    assert_eq!(
        error.message,
        "inside resolves to 127.0.0.1, a loopback address, which triggers may not reach (--egress-allow lists exceptions)"
    );
    let error = egress.connect("[::1]", 80).await.unwrap_err();
    assert!(
        error.message.starts_with("[::1] is ::1, a loopback address"),
        "{error}"
    );
}

/// The attack: a name that resolves to a harmless address when it is checked, and to another one when it is used.
#[tokio::test]
async fn a_name_that_moves_after_the_check_gains_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = Mutex::new(vec!["127.0.0.1", "127.0.0.1", "192.0.2.1"]);
    let egress = egress(&[], move |_| {
        let mut answers = answers.lock().unwrap();
        vec![answers.pop().unwrap_or("127.0.0.1")]
    });
    assert!(
        egress.addresses("moving", For::Port(port)).await.is_ok(),
        "the first answer is harmless"
    );
    for _ in 0..3 {
        let error = egress.connect("moving", port).await.unwrap_err();
        assert_eq!(error.kind, ReadErrorKind::EgressDenied, "{error}");
    }
    let nobody = timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody.is_err(), "somebody connected");
}

#[tokio::test]
async fn what_is_allowed_is_connected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let egress = egress(&["127.0.0.0/8"], |_| vec!["127.0.0.1"]);
    egress.connect("near", port).await.unwrap();
    egress.connect("127.0.0.1", port).await.unwrap();
    drop(listener);
    let error = egress.connect("near", port).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Unreachable);
}
