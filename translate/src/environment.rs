//! The environment of the scale target's container, as its pods will see it.

use std::collections::BTreeMap;

use dormouse_scalers::Sensitive;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec};

use crate::objects::{Objects, ObjectsError};

/// No expanded value grows past this, whatever refers to whatever.
const LONGEST_VALUE: usize = 64 * 1024;

/// Resolves the environment of `container` (or the first one) of `pod`: `envFrom`, plain values with `$(NAME)` expanded,
/// and references to Secrets and ConfigMaps of `namespace`. References to pod fields are left out, as their value differs
/// from pod to pod. With `skip_secrets`, values from Secrets are left out too.
///
/// # Errors
/// A look-up failed. A Secret or ConfigMap that does not exist only leaves its variables out.
pub async fn of_container(
    objects: &dyn Objects,
    namespace: &str,
    pod: &PodSpec,
    container: Option<&str>,
    skip_secrets: bool,
) -> Result<BTreeMap<String, Sensitive>, ObjectsError> {
    let mut env = BTreeMap::new();
    let Some(container) = find(pod, container) else {
        return Ok(env);
    };
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            for (key, value) in objects
                .config_map(namespace, &reference.name)
                .await?
                .unwrap_or_default()
            {
                env.insert(format!("{prefix}{key}"), Sensitive::new(value));
            }
        }
        if let Some(reference) = source.secret_ref.as_ref().filter(|_| !skip_secrets) {
            for (key, value) in objects
                .secret(namespace, &reference.name)
                .await?
                .unwrap_or_default()
            {
                env.insert(format!("{prefix}{key}"), value);
            }
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(objects, namespace, variable, &env, skip_secrets).await? {
            env.insert(variable.name.clone(), value);
        }
    }
    Ok(env)
}

fn find<'a>(pod: &'a PodSpec, name: Option<&str>) -> Option<&'a Container> {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => pod.containers.iter().find(|container| container.name == name),
        None => pod.containers.first(),
    }
}

async fn value_of(
    objects: &dyn Objects,
    namespace: &str,
    variable: &EnvVar,
    earlier: &BTreeMap<String, Sensitive>,
    skip_secrets: bool,
) -> Result<Option<Sensitive>, ObjectsError> {
    let Some(source) = &variable.value_from else {
        let plain = variable.value.as_deref().unwrap_or_default();
        return Ok(Some(Sensitive::new(expand(plain, earlier))));
    };
    if let Some(reference) = source.secret_key_ref.as_ref().filter(|_| !skip_secrets) {
        let values = objects.secret(namespace, &reference.name).await?;
        return Ok(values.and_then(|mut values| values.remove(&reference.key)));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let values = objects.config_map(namespace, &reference.name).await?;
        return Ok(values
            .and_then(|mut values| values.remove(&reference.key))
            .map(Sensitive::new));
    }
    Ok(None)
}

/// Expands `$(NAME)` from the variables before this one; `$$` is a literal dollar, and an unknown name stays as written.
fn expand(text: &str, earlier: &BTreeMap<String, Sensitive>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match earlier.get(name) {
                Some(value) if out.len() + value.reveal().len() <= LONGEST_VALUE => {
                    out.push_str(value.reveal())
                }
                _ => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_once_from_earlier_to_later() {
        let earlier: BTreeMap<_, _> = [("HOST", "queue"), ("LOOP", "$(HOST)")]
            .map(|(k, v)| (k.to_owned(), Sensitive::new(v)))
            .into();
        for (text, expected) in [
            ("http://$(HOST)/a", "http://queue/a"),
            ("$$(HOST)", "$(HOST)"),
            ("$(UNKNOWN) $", "$(UNKNOWN) $"),
            ("$(LOOP)", "$(HOST)"),
            ("$(open", "$(open"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(text, &earlier), expected, "{text}");
        }
    }
}
