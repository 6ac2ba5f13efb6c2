//! What demand is measured in.

use std::num::NonZeroU32;

use dormouse_api::{RequestRate as RequestRateSpec, ScalingMetric as ScalingMetricSpec, route_defaults};
use dormouse_core::routes::settings::{RequestRate, RequestRateError, ScalingMetric};

use super::faults::Faults;
use super::{DURATION, duration};

pub(super) fn metric(spec: &ScalingMetricSpec, faults: &mut Faults) -> ScalingMetric {
    if spec.concurrency.is_none() && spec.request_rate.is_none() {
        faults.add("spec.scalingMetric: at least one of 'concurrency' or 'requestRate' must be set");
    }
    let concurrency = spec
        .concurrency
        .as_ref()
        .and_then(|spec| target("concurrency", spec.target_value, faults));
    let request_rate = spec
        .request_rate
        .as_ref()
        .and_then(|spec| request_rate(spec, faults));
    ScalingMetric {
        concurrency,
        request_rate,
    }
}

fn target(metric: &str, value: i32, faults: &mut Faults) -> Option<NonZeroU32> {
    let target = u32::try_from(value).ok().and_then(NonZeroU32::new);
    if target.is_none() {
        let field = format_args!("spec.scalingMetric.{metric}.targetValue");
        faults.refuse(field, value, "a whole number of at least 1");
    }
    target
}

fn request_rate(spec: &RequestRateSpec, faults: &mut Faults) -> Option<RequestRate> {
    const WINDOW: &str = "spec.scalingMetric.requestRate.window";
    const GRANULARITY: &str = "spec.scalingMetric.requestRate.granularity";
    let (window, granularity) = (spec.window.as_deref(), spec.granularity.as_deref());
    let target = target("requestRate", spec.target_value, faults);
    let mut read = |field, text: Option<&str>, default| {
        text.map_or(Some(default), |text| {
            faults.check(field, text, duration(text).ok_or(DURATION))
        })
    };
    let window_read = read(WINDOW, window, route_defaults::RATE_WINDOW);
    let granularity_read = read(GRANULARITY, granularity, route_defaults::RATE_GRANULARITY);
    let (target, window_read, granularity_read) = (target?, window_read?, granularity_read?);
    match RequestRate::try_new(target, window_read, granularity_read) {
        Ok(rate) => Some(rate),
        Err(error) => {
            let (field, value) = match error {
                RequestRateError::EmptyWindow => (WINDOW, window_read),
                RequestRateError::Granularity => (GRANULARITY, granularity_read),
            };
            faults.refuse(field, value, error);
            None
        }
    }
}
