//! Whose credentials an AWS trigger signs with. AWS clients take much from the environment of their process, so each
//! case runs this program again as a child with an environment of its own, against scripted STS and SQS servers.

#[path = "peers/support.rs"]
#[allow(dead_code, reason = "shared with the other peers")]
mod support;

use std::env;
use std::error::Error;
use std::io::Write;
use std::process::Output;
use std::sync::Arc;

use axum::response::Response;
use dormouse_scalers::{AwsEnvironment, Clients, ClientsConfig, EgressRules, PodIdentity, connect};
use support::{Peer, Seen, answer, context, params};

type Outcome = Result<(), Box<dyn Error>>;

const CASE: &str = "DORMOUSE_TEST_CASE";
const ENDPOINT: &str = "DORMOUSE_TEST_SQS";
const ARN: &str = "arn:aws:iam::123456789012:role/worker";

#[tokio::main]
async fn main() -> Outcome {
    match env::var(CASE) {
        Ok(case) => child(&case, &env::var(ENDPOINT)?).await,
        Err(_) => {
            let cases: [(&str, Script, Check); 5] = [
                ("pod-identity", sts_grants, by_web_identity),
                (
                    "pod-identity",
                    sts_refuses_web_identity,
                    by_role_after_web_identity,
                ),
                ("pod-role", sts_grants, by_role_alone),
                ("operator", sts_grants, by_own_keys),
                ("pod-identity", sts_refuses, refused),
            ];
            for (number, (case, script, check)) in cases.into_iter().enumerate() {
                run(case, script, check)
                    .await
                    .map_err(|error| format!("case {number}, {case}: {error}"))?;
                writeln!(std::io::stdout(), "case {number}, {case}: ok")?;
            }
            Ok(())
        }
    }
}

/// Reads two queues of one identity and prints what came of it.
async fn child(case: &str, endpoint: &str) -> Outcome {
    let clients = Arc::new(Clients::new(ClientsConfig {
        aws: AwsEnvironment::default(),
        egress: EgressRules::with_loopback(),
        aws_endpoints: "127.0.0.1".parse()?,
        ..ClientsConfig::default()
    }));
    let mut held = Vec::new();
    for queue in ["orders", "bills"] {
        let mut metadata = vec![
            ("queueURL", queue),
            ("awsRegion", "eu-west-1"),
            ("awsEndpoint", endpoint),
        ];
        let mut auth = Vec::new();
        match case {
            "operator" => metadata.push(("identityOwner", "operator")),
            "pod-role" => auth.push(("awsRoleArn", ARN)),
            _ => {}
        }
        let mut cx = context(params("aws-sqs-queue", &metadata, &auth));
        cx.clients = Arc::clone(&clients);
        if case == "pod-identity" {
            cx.params.auth.pod_identity = Some(PodIdentity {
                provider: "aws".to_owned(),
                role_arn: Some(ARN.to_owned()),
                external_id: Some("canary-external".to_owned()),
            });
        }
        let trigger = connect(&cx)?;
        let outcome = tokio::time::timeout(trigger.deadline(), Arc::clone(&trigger).read()).await?;
        writeln!(std::io::stdout(), "{queue}: {outcome:?}")?;
        held.push(trigger);
    }
    Ok(())
}

type Script = fn(&Seen) -> Response;
type Check = fn(&str, &[Seen], &[Seen]) -> Outcome;

async fn run(case: &str, sts_script: Script, check: Check) -> Outcome {
    let sts = Peer::start(sts_script).await;
    let sqs = Peer::start(|_: &Seen| {
        let attributes = r#"{"ApproximateNumberOfMessages":"7","ApproximateNumberOfMessagesNotVisible":"3"}"#;
        answer(
            200,
            &[("content-type", "application/x-amz-json-1.0")],
            format!(r#"{{"Attributes":{attributes}}}"#),
        )
    })
    .await;
    let token = env::temp_dir().join(format!("dormouse-token-{}", std::process::id()));
    tokio::fs::write(&token, "canary-web-token\n").await?;
    let (program, case) = (env::current_exe()?, case.to_owned());
    let environment = [
        (CASE, case.clone()),
        (ENDPOINT, sqs.url("/")),
        ("AWS_ENDPOINT_URL_STS", sts.url("/")),
        ("AWS_ACCESS_KEY_ID", "OPERATOR".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "canary-operator".to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ];
    let output: Output = tokio::task::spawn_blocking(move || {
        std::process::Command::new(program)
            .env_clear()
            .envs(environment)
            .output()
    })
    .await??;
    tokio::fs::remove_file(&token).await?;
    let (out, err) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    assert!(output.status.success(), "{out}{err}");
    assert!(!out.contains("canary") && !err.contains("canary"), "{out}{err}");
    check(&out, &sts.seen(), &sqs.seen())
}

fn granted(action: &str, key: &str) -> Response {
    let body = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>canary-temporary</SecretAccessKey>\
         <SessionToken>canary-session</SessionToken><Expiration>2096-01-01T00:00:00Z</Expiration></Credentials>\
         </{action}Result></{action}Response>"
    );
    answer(200, &[("content-type", "text/xml")], body)
}

fn denied() -> Response {
    let body = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                <Code>AccessDenied</Code><Message>canary of the service</Message></Error></ErrorResponse>";
    answer(403, &[("content-type", "text/xml")], body)
}

fn action(seen: &Seen) -> String {
    field(seen, "Action")
}

fn field(seen: &Seen, name: &str) -> String {
    seen.form()
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
        .unwrap_or_default()
}

fn sts_grants(seen: &Seen) -> Response {
    match action(seen).as_str() {
        "AssumeRoleWithWebIdentity" => granted("AssumeRoleWithWebIdentity", "BYWEB"),
        _ => granted("AssumeRole", "BYROLE"),
    }
}

fn sts_refuses_web_identity(seen: &Seen) -> Response {
    if action(seen) == "AssumeRole" {
        granted("AssumeRole", "BYROLE")
    } else {
        denied()
    }
}

fn sts_refuses(_: &Seen) -> Response {
    denied()
}

const READ: &str =
    "orders: Ok(Observed { value: 10.0, active: true })\nbills: Ok(Observed { value: 10.0, active: true })\n";

fn signed_by(sqs: &[Seen], key: &str) -> Outcome {
    assert_eq!(sqs.len(), 2);
    for seen in sqs {
        let authorization = seen.header("authorization").ok_or("unsigned")?;
        assert!(
            authorization.contains(&format!("Credential={key}/")),
            "{authorization}"
        );
        assert!(
            authorization.contains("/eu-west-1/sqs/aws4_request"),
            "{authorization}"
        );
    }
    Ok(())
}

fn by_web_identity(out: &str, sts: &[Seen], sqs: &[Seen]) -> Outcome {
    assert_eq!(out, READ);
    // One call for both queues.
    assert_eq!(
        sts.iter().map(action).collect::<Vec<_>>(),
        ["AssumeRoleWithWebIdentity"]
    );
    assert_eq!(field(&sts[0], "RoleArn"), ARN);
    assert_eq!(field(&sts[0], "RoleSessionName"), "KEDA");
    assert_eq!(field(&sts[0], "WebIdentityToken"), "canary-web-token");
    assert_eq!(sts[0].header("authorization"), None);
    signed_by(sqs, "BYWEB")
}

fn by_role_after_web_identity(out: &str, sts: &[Seen], sqs: &[Seen]) -> Outcome {
    assert_eq!(out, READ);
    assert_eq!(
        sts.iter().map(action).collect::<Vec<_>>(),
        ["AssumeRoleWithWebIdentity", "AssumeRole"]
    );
    assert_eq!(field(&sts[1], "ExternalId"), "canary-external");
    assert_eq!(field(&sts[1], "RoleSessionName"), "KEDA");
    let authorization = sts[1].header("authorization").ok_or("unsigned")?;
    assert!(authorization.contains("Credential=OPERATOR/"), "{authorization}");
    signed_by(sqs, "BYROLE")
}

fn by_role_alone(out: &str, sts: &[Seen], sqs: &[Seen]) -> Outcome {
    assert_eq!(out, READ);
    assert_eq!(sts.iter().map(action).collect::<Vec<_>>(), ["AssumeRole"]);
    assert_eq!(field(&sts[0], "ExternalId"), "");
    signed_by(sqs, "BYROLE")
}

fn by_own_keys(out: &str, sts: &[Seen], sqs: &[Seen]) -> Outcome {
    assert_eq!(out, READ);
    assert!(sts.is_empty());
    signed_by(sqs, "OPERATOR")
}

fn refused(out: &str, _: &[Seen], sqs: &[Seen]) -> Outcome {
    let failure = |queue: &str| {
        format!(
            "{queue}: Err(ReadError {{ kind: Denied, message: \"error reading SQS queue \\\"{queue}\\\": \
             assuming the role: AccessDenied\" }})\n"
        )
    };
    assert_eq!(out, failure("orders") + &failure("bills"));
    assert!(sqs.is_empty());
    Ok(())
}
