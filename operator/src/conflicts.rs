//! Who else wants the same target: another ScaledObject, or an HPA that is not ours. Until an admission webhook can refuse
//! such objects, they are not Ready and say why in the webhook's words.

use std::sync::Arc;

use dormouse_api::{GroupVersionKindResource, ScaledObject, labels};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;

/// What is in the way of `object`, if anything. Of two objects with one target the older goes on; equal ages go by name.
#[must_use]
pub fn in_the_way(
    object: &ScaledObject,
    target: &GroupVersionKindResource,
    others: &[Arc<ScaledObject>],
    hpas: &[Arc<HorizontalPodAutoscaler>],
) -> Option<String> {
    let type_ = target_type(target);
    let workload = &object.spec.scale_target_ref.name;
    let hpa_name = object.spec.hpa_name(&object.name_any());
    for other in others.iter().filter(|other| is_rival(object, other)) {
        if same_target(object, other) {
            return Some(format!(
                "the workload '{workload}' of type '{type_}' is already managed by the ScaledObject '{}'",
                other.name_any()
            ));
        }
        if other.spec.hpa_name(&other.name_any()) == hpa_name {
            return Some(format!(
                "the HPA '{hpa_name}' is already managed by the ScaledObject '{}'",
                other.name_any()
            ));
        }
    }
    let on_target = |hpa: &&Arc<HorizontalPodAutoscaler>| {
        hpa.metadata.namespace == object.metadata.namespace
            && hpa.spec.as_ref().is_some_and(|spec| {
                let reference = &spec.scale_target_ref;
                reference.name == *workload
                    && reference.kind == target.kind
                    && group_of(reference.api_version.as_deref().unwrap_or_default()) == target.group
            })
    };
    let foreign = |hpa: &&Arc<HorizontalPodAutoscaler>| is_foreign(object, hpa, others);
    hpas.iter().filter(on_target).filter(foreign).find_map(|hpa| {
        let name = hpa.name_any();
        let transfer = object.annotations().get(labels::TRANSFER_HPA_OWNERSHIP).is_some_and(|value| value == "true");
        match (transfer, name == hpa_name) {
            (true, true) => None,
            (true, false) => Some(format!(
                "the existing hpa '{name}' for workload '{workload}' of type '{type_}' must be specified by name in \
                 advanced settings to enable ownership transfer"
            )),
            (false, _) => {
                Some(format!("the workload '{workload}' of type '{type_}' is already managed by the hpa '{name}'"))
            }
        }
    })
}

/// The younger objects that want what `object` has, and so have to be judged again.
pub fn outranked<'a>(
    object: &'a ScaledObject,
    others: &'a [Arc<ScaledObject>],
) -> impl Iterator<Item = &'a Arc<ScaledObject>> {
    let hpa_name = object.spec.hpa_name(&object.name_any());
    others.iter().filter(move |other| {
        is_rival(other, object)
            && (same_target(object, other) || other.spec.hpa_name(&other.name_any()) == hpa_name)
    })
}

/// `group/version.Kind`, as status and messages show a target.
#[must_use]
pub fn target_type(target: &GroupVersionKindResource) -> String {
    format!("{}/{}.{}", target.group, target.version, target.kind)
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Another live object of the namespace that was there first.
fn is_rival(object: &ScaledObject, other: &ScaledObject) -> bool {
    let (own, its) = (&object.metadata, &other.metadata);
    its.namespace == own.namespace
        && its.name != own.name
        && its.deletion_timestamp.is_none()
        && (&its.creation_timestamp, &its.name) < (&own.creation_timestamp, &own.name)
}

fn same_target(object: &ScaledObject, other: &ScaledObject) -> bool {
    let (a, b) = (&object.spec.scale_target_ref, &other.spec.scale_target_ref);
    a.name == b.name && a.kind() == b.kind() && group_of(a.api_version()) == group_of(b.api_version())
}

/// An HPA that belongs neither to this object nor to another ScaledObject that is there, and that nobody
/// said does not count. One without an owner but with our name is foreign as well.
fn is_foreign(object: &ScaledObject, hpa: &HorizontalPodAutoscaler, others: &[Arc<ScaledObject>]) -> bool {
    let owned_by = |uid: Option<&String>| {
        let owners = hpa.metadata.owner_references.iter().flatten();
        uid.is_some() && owners.into_iter().any(|owner| Some(&owner.uid) == uid)
    };
    hpa.annotations()
        .get(labels::HPA_OWNERSHIP)
        .is_none_or(|value| value != "false")
        && !owned_by(object.metadata.uid.as_ref())
        && !others.iter().any(|other| owned_by(other.metadata.uid.as_ref()))
}

#[cfg(test)]
mod tests {
    use dormouse_api::ScaledObjectSpec;
    use jiff::Timestamp;
    use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscalerSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn object(name: &str, workload: &str, created: i64) -> ScaledObject {
        let mut object = ScaledObject::new(name, ScaledObjectSpec::default());
        object.spec.scale_target_ref.name = workload.into();
        object.metadata.namespace = Some("shop".into());
        object.metadata.uid = Some(format!("uid-{name}"));
        object.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created).unwrap()));
        object
    }

    fn hpa(name: &str, workload: &str) -> HorizontalPodAutoscaler {
        let mut hpa = HorizontalPodAutoscaler::default();
        hpa.metadata.name = Some(name.into());
        hpa.metadata.namespace = Some("shop".into());
        hpa.spec = Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".into()),
                kind: "Deployment".into(),
                name: workload.into(),
            },
            ..Default::default()
        });
        hpa
    }

    fn deployment() -> GroupVersionKindResource {
        GroupVersionKindResource {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            resource: "deployments".into(),
        }
    }

    fn check(
        object: &ScaledObject,
        others: &[ScaledObject],
        hpas: &[HorizontalPodAutoscaler],
    ) -> Option<String> {
        let others: Vec<_> = others.iter().cloned().map(Arc::new).collect();
        let hpas: Vec<_> = hpas.iter().cloned().map(Arc::new).collect();
        in_the_way(object, &deployment(), &others, &hpas)
    }

    #[test]
    fn the_older_object_goes_on() {
        let (old, young) = (object("old", "app", 1), object("young", "app", 2));
        let both = [old.clone(), young.clone()];
        assert_eq!(check(&old, &both, &[]), None);
        assert_eq!(
            check(&young, &both, &[]).unwrap(),
            "the workload 'app' of type 'apps/v1.Deployment' is already managed by the ScaledObject 'old'"
        );
        assert_eq!(check(&object("other", "web", 3), &both, &[]), None);
        let both: Vec<_> = both.into_iter().map(Arc::new).collect();
        let names = |object: &ScaledObject| {
            outranked(object, &both)
                .map(|other| other.name_any())
                .collect::<Vec<_>>()
        };
        assert_eq!((names(&old), names(&young)), (vec!["young".to_owned()], vec![]));
    }

    #[test]
    fn a_foreign_hpa_is_in_the_way_unless_someone_says_otherwise() {
        let mut mine = object("mine", "app", 1);
        let foreign = hpa("theirs", "app");
        assert_eq!(
            check(&mine, &[], std::slice::from_ref(&foreign)).unwrap(),
            "the workload 'app' of type 'apps/v1.Deployment' is already managed by the hpa 'theirs'"
        );
        assert_eq!(check(&mine, &[], &[hpa("theirs", "web")]), None);
        let mut ignored = foreign.clone();
        ignored
            .annotations_mut()
            .insert(labels::HPA_OWNERSHIP.into(), "false".into());
        assert_eq!(check(&mine, &[], &[ignored]), None);
        mine.annotations_mut()
            .insert(labels::TRANSFER_HPA_OWNERSHIP.into(), "true".into());
        assert!(
            check(&mine, &[], &[foreign])
                .unwrap()
                .contains("must be specified by name")
        );
        assert_eq!(check(&mine, &[], &[hpa("keda-hpa-mine", "app")]), None);
    }
}
