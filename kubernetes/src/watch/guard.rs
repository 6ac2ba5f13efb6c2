//! An object that may not decode.

use std::{borrow::Cow, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error};
use serde_json::Value;

/// The longest account of what is wrong with an object.
const MAX_ERROR: usize = 512;
/// The metadata that a watch itself reads.
const IDENTITY: [&str; 6] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "deletionTimestamp",
    "finalizers",
];

/// An object of the API server's type `R` in the form `K`, or what is wrong with it. Unlike the library's guard it names the
/// field.
#[derive(Debug)]
pub(super) struct Guard<R, K> {
    /// What identifies it.
    metadata: Box<ObjectMeta>,
    object: Result<Box<K>, String>,
    of: PhantomData<fn() -> R>,
}

impl<R, K: Clone> Clone for Guard<R, K> {
    fn clone(&self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            object: self.object.clone(),
            of: PhantomData,
        }
    }
}

impl<R, K> Guard<R, K> {
    /// What is wrong with the object, if anything is.
    pub(super) fn fault(&self) -> Option<&str> {
        self.object.as_ref().err().map(String::as_str)
    }

    /// The object, or what is wrong with it.
    pub(super) fn into_result(self) -> Result<K, String> {
        self.object.map(|object| *object)
    }
}

impl<'de, R, K: DeserializeOwned> Deserialize<'de> for Guard<R, K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let mut identity = Value::Null;
        if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
            // Often larger than all the rest of an object, and nothing that watches reads them: whoever writes an object
            // whole gets it anew before.
            metadata.remove("managedFields");
            let own = metadata
                .iter()
                .filter(|(name, _)| IDENTITY.contains(&name.as_str()));
            identity = own.map(|(name, value)| (name.clone(), value.clone())).collect();
        }
        // Without metadata nobody could be told which object it is.
        let metadata = serde_json::from_value(identity).map_err(D::Error::custom)?;
        let object = serde_path_to_error::deserialize(value).map_err(|error| {
            let error = format!("{}: {}", error.path(), error.inner());
            error.chars().take(MAX_ERROR).collect()
        });
        Ok(Self {
            metadata,
            object,
            of: PhantomData,
        })
    }
}

impl<R: Resource, K> Resource for Guard<R, K> {
    type DynamicType = R::DynamicType;
    type Scope = R::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        R::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        R::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        R::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        R::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn metadata_api() -> bool {
        R::metadata_api()
    }
}
