//! An object that may not decode.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error};
use serde_json::Value;

/// The longest account of what is wrong with an object.
const MAX_ERROR: usize = 512;

/// An object, or what is wrong with it. Unlike the library's guard it names the field.
#[derive(Debug, Clone)]
pub(super) enum Guard<K> {
    Good(Box<K>),
    Bad {
        metadata: Box<ObjectMeta>,
        error: String,
    },
}

impl<K> Guard<K> {
    /// What is wrong with the object, if anything is.
    pub(super) fn fault(&self) -> Option<&str> {
        match self {
            Self::Good(_) => None,
            Self::Bad { error, .. } => Some(error),
        }
    }

    /// The object, or what is wrong with it.
    pub(super) fn into_result(self) -> Result<K, String> {
        match self {
            Self::Good(object) => Ok(*object),
            Self::Bad { error, .. } => Err(error),
        }
    }
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Guard<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        // Often larger than all the rest of an object, and nothing that watches reads them: whoever writes an object whole
        // gets it anew before.
        if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
            metadata.remove("managedFields");
        }
        let metadata = value.get("metadata").cloned().unwrap_or_default();
        match serde_path_to_error::deserialize(value) {
            Ok(object) => Ok(Self::Good(Box::new(object))),
            Err(error) => {
                // Without metadata nobody could be told which object it is.
                let metadata = serde_json::from_value(metadata).map_err(D::Error::custom)?;
                let error = format!("{}: {}", error.path(), error.inner());
                Ok(Self::Bad {
                    metadata,
                    error: error.chars().take(MAX_ERROR).collect(),
                })
            }
        }
    }
}

impl<K: Resource> Resource for Guard<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Good(object) => object.meta(),
            Self::Bad { metadata, .. } => metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Good(object) => object.meta_mut(),
            Self::Bad { metadata, .. } => metadata,
        }
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }
}
