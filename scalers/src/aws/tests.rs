use schemars::JsonSchema;
use serde::Deserialize;

use super::{AwsEnvironment, Identity, check_endpoint};
use crate::clients::Clients;
use crate::connect::{PodIdentity, TriggerParams};
use crate::metadata::{self, Metadata};
use crate::sensitive::Sensitive;
use crate::testing;

/// A scaler's parameters that consist of the block alone.
#[derive(Deserialize, JsonSchema)]
struct Only {
    #[serde(flatten)]
    aws: super::AwsMetadata,
}

impl Metadata for Only {
    const CONTEXT: &'static str = "outer";
    const PARSING: &'static str = "inner";
}

fn identity(params: &TriggerParams) -> Result<Identity, String> {
    let only: Only = metadata::parse(params).map_err(|error| error.to_string())?;
    only.aws.identity.pick(params.auth.pod_identity.as_ref())
}

fn keys(id: &str, secret: &str, token: Option<&str>) -> Identity {
    Identity::Keys {
        id: Sensitive::new(id),
        secret: Sensitive::new(secret),
        token: token.map(Sensitive::new),
    }
}

fn role(arn: &str, external_id: Option<&str>, web_identity: bool) -> Identity {
    Identity::Role {
        arn: Sensitive::new(arn),
        external_id: external_id.map(str::to_owned),
        web_identity,
    }
}

#[test]
fn identity_by_owner_and_parameters() {
    let both = [("awsAccessKeyID", "id"), ("awsSecretAccessKey", "secret")];
    let with_token = [
        ("awsAccessKeyId", "id"),
        ("awsSecretAccessKey", "secret"),
        ("awsSessionToken", "token"),
    ];
    for (metadata, auth, expected) in [
        (&[][..], &both[..], Ok(keys("id", "secret", None))),
        (
            &[("identityOwner", "pod")],
            &with_token,
            Ok(keys("id", "secret", Some("token"))),
        ),
        (
            &[("identityOwner", " ")],
            &[("awsRoleArn", "arn"), ("awsAccessKeyID", "id")],
            Ok(role("arn", None, false)),
        ),
        (&[("identityOwner", "operator")], &both, Ok(Identity::Operator)),
        (&[("identityOwner", "somebody")], &[], Ok(Identity::Operator)),
        (&[], &[], Err("awsAccessKeyID not found".to_owned())),
        (
            &[("awsAccessKeyID", "id")],
            &[],
            Err("awsSecretAccessKey not found".to_owned()),
        ),
    ] {
        let mut metadata = metadata.to_vec();
        metadata.push(("awsRegion", "eu-west-1"));
        assert_eq!(
            identity(&testing::params("x", &metadata, auth)),
            expected,
            "{metadata:?}"
        );
    }
}

#[test]
fn keys_from_the_containers_environment() {
    let mut params = testing::params(
        "x",
        &[
            ("awsRegion", "eu-west-1"),
            ("awsAccessKeyIDFromEnv", "ID"),
            ("awsSecretAccessKeyFromEnv", "SECRET"),
        ],
        &[],
    );
    assert_eq!(identity(&params), Err("awsAccessKeyID not found".to_owned()));
    params.env.insert("ID".to_owned(), Sensitive::new("id"));
    assert_eq!(identity(&params), Err("awsSecretAccessKey not found".to_owned()));
    params.env.insert("SECRET".to_owned(), Sensitive::new("secret"));
    assert_eq!(identity(&params), Ok(keys("id", "secret", None)));
}

#[test]
fn a_pod_identity_needs_no_keys() {
    let mut params = testing::params("x", &[("awsRegion", "eu-west-1")], &[]);
    let mut pod = PodIdentity {
        provider: "aws".to_owned(),
        role_arn: None,
        external_id: Some("ext".to_owned()),
    };
    params.auth.pod_identity = Some(pod.clone());
    assert_eq!(identity(&params), Ok(Identity::Operator));
    params
        .auth
        .params
        .insert("awsRoleArn".to_owned(), Sensitive::new("arn-of-secret"));
    assert_eq!(identity(&params), Ok(role("arn-of-secret", Some("ext"), true)));
    pod.role_arn = Some("arn".to_owned());
    params.auth.pod_identity = Some(pod.clone());
    assert_eq!(identity(&params), Ok(role("arn", Some("ext"), true)));
    pod.provider = "gcp".to_owned();
    params.auth = crate::AuthParams {
        pod_identity: Some(pod),
        ..crate::AuthParams::default()
    };
    assert_eq!(identity(&params), Err("awsAccessKeyID not found".to_owned()));
}

#[test]
fn a_services_own_endpoint_goes_before_the_general_one() {
    use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
    let environment = AwsEnvironment {
        web_identity_token_file: None,
        endpoint_urls: [("AWS_ENDPOINT_URL", "general"), ("AWS_ENDPOINT_URL_STS", "sts")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
    };
    let ask = |service| {
        let key = ServiceConfigKey::builder()
            .service_id(service)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build()
            .unwrap();
        environment.load_config(key)
    };
    assert_eq!(ask("STS").as_deref(), Some("sts"));
    assert_eq!(ask("SQS").as_deref(), Some("general"));
}

#[test]
fn an_identity_of_the_operator_signs_for_known_hosts_only() {
    let mut cx = testing::context(testing::params("aws-sqs-queue", &[], &[]));
    cx.clients = std::sync::Arc::new(Clients::new(crate::ClientsConfig {
        aws_endpoints: "*.sqs.internal".parse().unwrap(),
        ..crate::ClientsConfig::default()
    }));
    let keys = Identity::Keys {
        id: Sensitive::new("id"),
        secret: Sensitive::new("secret"),
        token: None,
    };
    let strangers = [
        "https://evil.example",
        "https://sqs.evil.amazonaws.com.evil.example",
        "https://evil.execute-api.eu-west-1.amazonaws.com",
        "https://s3.eu-west-1.amazonaws.com",
        "http://169.254.169.254",
    ];
    for endpoint in strangers {
        check_endpoint(&keys, "sqs", ("awsEndpoint", endpoint), &cx).unwrap();
        let error = check_endpoint(&Identity::Operator, "sqs", ("awsEndpoint", endpoint), &cx).unwrap_err();
        assert!(error.contains("--aws-endpoint-allow"), "{error}");
        let role = Identity::Role {
            arn: Sensitive::new("arn"),
            external_id: None,
            web_identity: false,
        };
        check_endpoint(&role, "sqs", ("awsEndpoint", endpoint), &cx).unwrap_err();
    }
    for endpoint in [
        "https://sqs.eu-west-1.amazonaws.com",
        "https://sqs-fips.us-east-1.amazonaws.com/",
        "https://sqs.cn-north-1.amazonaws.com.cn",
        "https://sqs.eu-west-1.api.aws",
        "https://vpce-0a-1b.sqs.eu-west-1.vpce.amazonaws.com",
        "http://a.sqs.internal:9324",
    ] {
        check_endpoint(&Identity::Operator, "sqs", ("awsEndpoint", endpoint), &cx).unwrap();
    }
    for endpoint in ["sqs", "ftp://sqs.eu-west-1.amazonaws.com", ""] {
        check_endpoint(&keys, "sqs", ("awsEndpoint", endpoint), &cx).unwrap_err();
    }
}
