//! Statistics: medians, percentiles, exponents.
//!
//! Owns: the arithmetic of the report. May use: nothing. Never: drops an outlier.

use serde::Serialize;

/// A median with its spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

// === impl Spread ===

impl Spread {
    /// Of these values; none of no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => return None,
            even if even.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Self { median, min: sorted[0], max: sorted[sorted.len() - 1] })
    }
}

/// The value below or at which this share of `sorted` lies; 0 of nothing.
pub fn percentile(sorted: &[u32], share: f64) -> u32 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

/// The exponent `e` of `y = c * x^e` that fits best, on logarithmic scales; none below two different `x`.
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    Line::through(&logs).map(|line| line.slope)
}

/// `y = base + slope * x`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Line {
    /// What is there at 0.
    pub base: f64,
    /// What each adds.
    pub slope: f64,
}

// === impl Line ===

impl Line {
    /// The line that fits best; none below two different `x`.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean_x = points.iter().map(|p| p.0).sum::<f64>() / count;
        let mean_y = points.iter().map(|p| p.1).sum::<f64>() / count;
        let above: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let below: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let slope = above / below;
        slope.is_finite().then_some(Self { base: mean_y - slope * mean_x, slope })
    }

    /// Its `y` at `x`.
    pub fn at(self, x: f64) -> f64 {
        self.base + self.slope * x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_through_its_points() {
        let line = Line::through(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]).expect("two different x");
        assert!((line.base - 3.0).abs() < 1e-9 && (line.slope - 2.0).abs() < 1e-9, "{line:?}");
        assert!((line.at(10.0) - 23.0).abs() < 1e-9);
        assert_eq!(Line::through(&[(1.0, 5.0), (1.0, 7.0)]), None);
    }

    #[test]
    fn a_median_has_a_spread() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[7.0]), Some(Spread { median: 7.0, min: 7.0, max: 7.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!([0.5, 0.99, 1.0, 0.0].map(|share| percentile(&hundred, share)), [50, 99, 100, 1]);
        assert_eq!(percentile(&[5], 0.99), 5);
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn exponents_are_those_of_growth() {
        let grow = |e: f64| [1.0f64, 10.0, 100.0].map(|x| (x, 3.0 * x.powf(e)));
        for e in [0.0, 0.5, 1.0, 2.0] {
            assert!((exponent(&grow(e)).expect("three points") - e).abs() < 1e-9);
        }
        assert_eq!(exponent(&[(2.0, 1.0), (2.0, 2.0)]), None);
        assert_eq!(exponent(&[]), None);
    }
}
