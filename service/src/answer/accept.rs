//! What a client wants to read, from its `Accept`.

use http::{HeaderMap, header};

/// Whether the client asks for problem+json: it names it, and names plain JSON not more eagerly.
pub(super) fn wants_problem(accept: &str) -> bool {
    let problem = quality(accept, "application/problem+json");
    problem > 0 && problem >= quality(accept, "application/json")
}

/// Whether the client asks for a page rather than for JSON: what it names first of the two.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let place = |kind: &str| accept.find(kind).unwrap_or(usize::MAX);
    place("text/html") < place("application/json")
}

/// How eagerly a client names this very type, in thousandths; 0 if it does not.
fn quality(accept: &str, wanted: &str) -> u16 {
    let range = accept.split(',').find_map(|range| {
        let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
        kind.trim().eq_ignore_ascii_case(wanted).then_some(parameters)
    });
    let Some(parameters) = range else { return 0 };
    let weight = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    weight.map_or(1000, thousandths)
}

/// `0.25` as 250; 0 for what is no weight.
fn thousandths(weight: &str) -> u16 {
    match weight.parse::<f32>() {
        // Within 0 and 1000, so nothing is cut off.
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0).round() as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn pages_are_for_those_who_name_them_first() {
        let accepts =
            |text: &'static str| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(text))]);
        assert!(wants_page(&accepts("text/html,application/xhtml+xml,*/*;q=0.8")));
        assert!(!wants_page(&accepts("*/*")));
        assert!(!wants_page(&accepts("application/json, text/html")));
        assert!(!wants_page(&HeaderMap::new()));
    }

    #[test]
    fn problems_are_for_those_who_name_them() {
        for accept in [
            "application/problem+json",
            "application/json;q=0.9, Application/Problem+JSON",
            "application/problem+json;q=0.5, */*",
            "application/problem+json , application/json",
        ] {
            assert!(wants_problem(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/json",
            "application/problem+json;q=0",
            "application/problem+json;q=0.2, application/json;q=0.3",
            "application/problem+json;q=nonsense",
        ] {
            assert!(!wants_problem(accept), "{accept}");
        }
    }
}
