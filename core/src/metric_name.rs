//! How metrics are named on the HPA.

/// The external metric name of a trigger: `s<index>-` and the base name with `/ . : % ( )` turned into `-`
/// (nothing else is touched, case included), as KEDA names them.
#[must_use]
pub fn external(index: usize, base: &str) -> String {
    let normalised: String = base
        .chars()
        .map(|c| {
            if matches!(c, '/' | '.' | ':' | '%' | '(' | ')') {
                '-'
            } else {
                c
            }
        })
        .collect();
    format!("s{index}-{normalised}")
}

#[cfg(test)]
mod tests {
    use super::external;

    #[test]
    fn only_the_six_characters_change() {
        assert_eq!(external(0, "aws-sqs-orders.fifo"), "s0-aws-sqs-orders-fifo");
        assert_eq!(
            external(3, "cron-Asia/Tokyo-00xxx-5923xxx"),
            "s3-cron-Asia-Tokyo-00xxx-5923xxx"
        );
        assert_eq!(external(1, "a/b.c:d%e(f)G_h*i"), "s1-a-b-c-d-e-f-G_h*i");
    }
}
