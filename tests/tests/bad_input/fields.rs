//! Fields that the CRD lets through and the operator cannot accept.

use serde_json::{Value, json};

use crate::cases::{Good, Wrong};

/// Every such field, one object each.
pub(crate) fn all(good: &Good) -> Vec<Wrong> {
    spec(good)
        .into_iter()
        .chain(sqs(good))
        .chain(cron(good))
        .chain(metrics_api(good))
        .collect()
}

fn spec(good: &Good) -> Vec<Wrong> {
    let wrong =
        |name, sentence: &str, spoil: &dyn Fn(&mut Value)| Wrong::spoiled(good, name, sentence, spoil);
    let (first, second) = (named(good, "same"), named(good, "same"));
    vec![
        wrong(
            "idle-at-min",
            "IdleReplicaCount=2 must be less than MinReplicaCount=2",
            &|object| {
                object["spec"]["idleReplicaCount"] = json!(2);
                object["spec"]["minReplicaCount"] = json!(2);
            },
        ),
        wrong(
            "idle-without-min",
            "IdleReplicaCount=0 must be less than MinReplicaCount=0",
            &|object| {
                object["spec"]["idleReplicaCount"] = json!(0);
            },
        ),
        wrong(
            "trigger-names",
            "triggerName \"same\" is defined multiple times in the ScaledObject/ScaledJob, but it must be unique",
            &|object| object["spec"]["triggers"] = json!([first, second]),
        ),
        wrong(
            "cached-cron",
            "property \"useCachedMetrics\" is not supported for \"cron\" scaler",
            &|object| {
                object["spec"]["triggers"] = json!([day_and_night()]);
                object["spec"]["triggers"][0]["useCachedMetrics"] = json!(true);
            },
        ),
        wrong(
            "utilization",
            "'Utilization' metric type is unsupported for external metrics, allowed values are 'Value' or 'AverageValue'",
            &|object| object["spec"]["triggers"][0]["metricType"] = json!("Utilization"),
        ),
        wrong(
            "metric-type",
            "spec.triggers[0].metricType is \"Median\": 'Value' or 'AverageValue' is accepted",
            &|object| object["spec"]["triggers"][0]["metricType"] = json!("Median"),
        ),
        wrong(
            "unknown-trigger",
            "no scaler found for type: no-such-trigger",
            &|object| {
                object["spec"]["triggers"][0]["type"] = json!("no-such-trigger");
            },
        )
        .warned("KEDAScalerFailed", "no scaler found for type: no-such-trigger"),
        wrong(
            "modifiers",
            "spec.advanced.scalingModifiers is not supported yet",
            &|object| {
                object["spec"]["advanced"] = json!({"scalingModifiers": {"formula": "a", "target": "1"}});
            },
        ),
        wrong(
            "fallback-formula",
            "scalingModifiers fallback behavior requires scalingModifiers.formula to be defined",
            &|object| {
                object["spec"]["fallback"] =
                    json!({"failureThreshold": 1, "replicas": 1, "behavior": "scalingModifiers"});
            },
        ),
        wrong(
            "paused-replicas",
            "annotation autoscaling.keda.sh/paused-replicas is \"some\": a whole number from 0 to 2147483647 is accepted",
            &|object| {
                object["metadata"]["annotations"] = json!({"autoscaling.keda.sh/paused-replicas": "some"})
            },
        ),
    ]
}

/// A wrong trigger of one type: the metadata that differs from a right one (`null` takes away), and the fault.
fn triggers(good: &Good, right: &Value, context: &str, faults: &[(&str, Value, &str)]) -> Vec<Wrong> {
    let each = |(name, change, fault): &(&str, Value, &str)| {
        let sentence =
            format!("failed to ensure HPA is correctly created for ScaledObject: {context}: {fault}");
        let note = format!("{context}: {fault}");
        Wrong::spoiled(good, name, sentence, |object| {
            let mut trigger = right.clone();
            for (key, value) in change.as_object().into_iter().flatten() {
                match value {
                    Value::Null => drop(
                        trigger["metadata"]
                            .as_object_mut()
                            .and_then(|all| all.remove(key)),
                    ),
                    value => trigger["metadata"][key] = value.clone(),
                }
            }
            object["spec"]["triggers"] = json!([trigger]);
        })
        .warned("KEDAScalerFailed", note)
    };
    faults.iter().map(each).collect()
}

fn sqs(good: &Good) -> Vec<Wrong> {
    let right = json!({"type": "aws-sqs-queue", "metadata": {
        "queueURL": "https://sqs.eu-west-1.amazonaws.com/123456789012/orders", "queueLength": "5", "awsRegion": "eu-west-1",
        "identityOwner": "operator",
    }});
    let whole = "expected a whole number";
    let context = "error parsing SQS queue metadata";
    let mut all = triggers(
        good,
        &right,
        &format!("{context}: {context}"),
        &[
            (
                "sqs-no-region",
                json!({"awsRegion": null}),
                "missing required parameter \"awsRegion\" in [triggerMetadata authParams]",
            ),
            (
                "sqs-blank-url",
                json!({"queueURL": "  "}),
                "missing required parameter \"queueURL\" in [triggerMetadata resolvedEnv]",
            ),
            (
                "sqs-length-text",
                json!({"queueLength": "many"}),
                &format!("unable to set param \"queueLength\" value \"many\": {whole}"),
            ),
            (
                "sqs-length-half",
                json!({"queueLength": "5.0"}),
                &format!("unable to set param \"queueLength\" value \"5.0\": {whole}"),
            ),
            (
                "sqs-flag",
                json!({"scaleOnInFlight": "perhaps"}),
                "unable to set param \"scaleOnInFlight\" value \"perhaps\": expected true or false",
            ),
            (
                "sqs-two-faults",
                json!({"awsRegion": null, "activationQueueLength": "x"}),
                "missing required parameter \"awsRegion\" in [triggerMetadata authParams], unable to set param \"activationQueueLength\" value \"x\"",
            ),
        ],
    );
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.extend(triggers(
        good,
        &right,
        context,
        &[
            (
                "sqs-url-form",
                json!({"queueURL": "https://sqs.eu-west-1.amazonaws.com/orders"}),
                "cannot get queueName from queueURL",
            ),
            (
                "sqs-no-keys",
                json!({"identityOwner": null}),
                "awsAccessKeyID not found",
            ),
        ],
    ));
    all
}

fn cron(good: &Good) -> Vec<Wrong> {
    let context = "error parsing cron metadata";
    let right = day_and_night();
    let mut all = triggers(
        good,
        &right,
        &format!("{context}: {context}"),
        &[
            (
                "cron-no-zone",
                json!({"timezone": null}),
                "missing required parameter \"timezone\" in [triggerMetadata]",
            ),
            (
                "cron-same",
                json!({"end": "0 0 * * *"}),
                "start and end can not have exactly same time input",
            ),
            (
                "cron-none",
                json!({"desiredReplicas": "0"}),
                "no desiredReplicas specified",
            ),
            (
                "cron-text",
                json!({"desiredReplicas": "two"}),
                "unable to set param \"desiredReplicas\" value \"two\": expected a whole number",
            ),
        ],
    );
    all.extend(triggers(
        good,
        &right,
        context,
        &[
            (
                "cron-zone",
                json!({"timezone": "Mars/Base"}),
                "unable to load timezone: unknown time zone Mars/Base",
            ),
            (
                "cron-spec",
                json!({"start": "0 25 * * *"}),
                "error parsing start schedule: \"25\" is not a valid hour",
            ),
            (
                "cron-fields",
                json!({"end": "0 0 * *"}),
                "error parsing end schedule: ",
            ),
        ],
    ));
    all
}

fn metrics_api(good: &Good) -> Vec<Wrong> {
    let (context, parsing) = (
        "error parsing metric API metadata",
        "error parsing metrics API metadata",
    );
    let right = good.trigger();
    let mut all = triggers(
        good,
        &right,
        &format!("{context}: {parsing}"),
        &[
            (
                "api-no-url",
                json!({"url": null}),
                "missing required parameter \"url\" in [triggerMetadata]",
            ),
            (
                "api-blank-location",
                json!({"valueLocation": " "}),
                "missing required parameter \"valueLocation\" in [triggerMetadata]",
            ),
            (
                "api-no-target",
                json!({"targetValue": null}),
                "no targetValue given in metadata",
            ),
            (
                "api-target-text",
                json!({"targetValue": "lots"}),
                "unable to set param \"targetValue\" value \"lots\": expected a number",
            ),
            (
                "api-format",
                json!({"format": "csv"}),
                "parameter \"format\" value \"csv\" must be one of [json prometheus xml yaml]",
            ),
            (
                "api-flag",
                json!({"unsafeSsl": "maybe"}),
                "unable to set param \"unsafeSsl\" value \"maybe\": expected true or false",
            ),
            (
                "api-timeout",
                json!({"timeout": "soon"}),
                "unable to set param \"timeout\" value \"soon\": ",
            ),
            (
                "api-mode",
                json!({"authMode": "magic"}),
                "parameter \"authModes,authMode\" value \"magic\" must be one of [apiKey basic tls bearer custom oauth]",
            ),
            (
                "api-bearer",
                json!({"authMode": "bearer"}),
                "bearer token=<empty> is required when bearer auth is enabled",
            ),
        ],
    );
    all.extend(triggers(
        good,
        &right,
        context,
        &[(
            "api-scheme",
            json!({"url": "ftp://files.shop.svc/stats"}),
            "parameter \"url\" must be an absolute http or https URL",
        )],
    ));
    all
}

fn named(good: &Good, name: &str) -> Value {
    let mut trigger = good.trigger();
    trigger["name"] = json!(name);
    trigger
}

fn day_and_night() -> Value {
    json!({"type": "cron", "metadata": {
        "timezone": "Etc/UTC", "start": "0 0 * * *", "end": "59 23 * * *", "desiredReplicas": "2",
    }})
}
