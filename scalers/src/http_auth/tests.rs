use super::HttpAuth;
use crate::clients::{Clients, ClientsConfig};
use crate::metadata::{self, Metadata};
use crate::testing;
use schemars::JsonSchema;
use serde::Deserialize;

/// A scaler's parameters that consist of the block alone.
#[derive(Deserialize, JsonSchema)]
struct Only {
    #[serde(flatten)]
    auth: super::HttpAuthMetadata,
}

impl Metadata for Only {
    const CONTEXT: &'static str = "outer";
    const PARSING: &'static str = "inner";

    fn validate(&self) -> Result<(), String> {
        self.auth.validate()
    }
}

fn build(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> Result<HttpAuth, String> {
    let params = testing::params("x", metadata, auth);
    let only: Only = metadata::parse(&params).map_err(|error| error.to_string())?;
    HttpAuth::new(only.auth, false, &Clients::new(ClientsConfig::default()))
}

#[test]
fn each_mode_names_what_it_misses() {
    for (mode, auth, fault) in [
        (
            "bearer",
            &[][..],
            "bearer token=<empty> is required when bearer auth is enabled",
        ),
        (
            "basic",
            &[("password", "canary")][..],
            "username=<empty> is required when basic auth is enabled",
        ),
        (
            "apiKey",
            &[],
            "apiKey=<empty> is required when apiKey auth is enabled",
        ),
        (
            "tls",
            &[("key", "canary")],
            "cert=<empty> is required when tls auth is enabled",
        ),
        (
            "tls",
            &[("cert", "canary")],
            "key=<empty> is required when tls auth is enabled",
        ),
        (
            "custom",
            &[],
            "customAuthHeader=<empty> is required when custom auth is enabled",
        ),
        (
            "custom",
            &[("customAuthHeader", "X-A")],
            "customAuthValue=<empty> is required when custom auth is enabled",
        ),
        (
            "oauth",
            &[],
            "oauthTokenURI=<empty> is required when oauth auth is enabled",
        ),
        (
            "oauth",
            &[("oauthTokenURI", "http://a")],
            "clientID=<empty> is required when oauth auth is enabled",
        ),
        (
            "bearer,basic",
            &[("token", "canary"), ("username", "canary")],
            "at most one of bearer, basic and oauth can be in authModes",
        ),
    ] {
        assert_eq!(
            build(&[("authModes", mode)], auth).err(),
            Some(format!("outer: inner: {fault}")),
            "{mode}"
        );
    }
    assert_eq!(
        build(&[("authMode", "tls, digest")], &[]).err().unwrap(),
        "outer: inner: parameter \"authModes,authMode\" value \"tls, digest\" must be one of [apiKey basic tls bearer custom oauth]"
    );
}

#[test]
fn unusable_values_are_named_without_showing_them() {
    for (metadata, auth, fault) in [
        (
            &[("authModes", "bearer")][..],
            &[("token", "cana\nry")][..],
            "bearerToken cannot be sent as an HTTP header",
        ),
        (
            &[("authModes", "apiKey"), ("keyParamName", "a b")],
            &[("apiKey", "canary")],
            "keyParamName and apiKey cannot be sent as an HTTP header",
        ),
        (
            &[("authModes", "tls")],
            &[("cert", "canary"), ("key", "canary")],
            "cert must hold at least one certificate in PEM form",
        ),
        (
            &[],
            &[("ca", "canary")],
            "ca must hold at least one certificate in PEM form",
        ),
        (
            &[("authModes", "oauth")],
            &[
                ("oauthTokenURI", "canary"),
                ("clientID", "canary"),
                ("clientSecret", "canary"),
            ],
            "oauthTokenURI must be an absolute http or https URL",
        ),
    ] {
        assert_eq!(build(metadata, auth).err().as_deref(), Some(fault));
    }
}
