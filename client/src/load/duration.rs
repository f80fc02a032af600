//! Durations as people write them for a run: `500ms`, `1.5s`, `30m`, `2h`.

use std::time::Duration;

/// A text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no duration; accepted: a number and ms, s, m or h, as in 20s")]
pub struct DurationError {
    text: String,
}

/// Reads a duration: a number and ms, s, m or h.
///
/// # Errors
/// There is no number, no such unit, or it is too long to be counted.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let refused = || DurationError { text: text.to_owned() };
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(refused()),
    };
    let number: f64 = number.parse().map_err(|_| refused())?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse_duration;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for refused in ["20", "s", "-1s", "1d", "99999999999999999999999h"] {
            assert!(parse_duration(refused).is_err(), "{refused}");
        }
    }
}
