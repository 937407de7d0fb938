//! Why a request failed, whether another one may help, and what people should know of it.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::{Error, anyhow};
use oci_client::errors::{OciEnvelope, OciErrorCode};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// The longest that a registry may make us wait between attempts; whoever asks for more has closed for today.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// Characters of a server's answer that are shown.
const SHOWN: usize = 200;

/// A request that did not bring what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer, or a broken one.
    Network(reqwest::Error),
    /// An answer that stopped too early.
    Ended(io::Error),
    /// Another answer than wanted.
    Refused {
        status: u16,
        /// The registry's own words.
        errors: Option<OciEnvelope>,
        /// The beginning of what else it said.
        text: String,
        /// How long it wants us to stay away.
        wait: Option<Duration>,
    },
    /// The server that gives tokens gave none.
    NoToken { status: u16, text: String, wait: Option<Duration> },
    /// Whatever else; trying again is in vain.
    Final(Error),
}

impl Failure {
    /// From an answer that is not a success.
    pub(super) fn refused(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        Self::Refused {
            status,
            errors: serde_json::from_slice(body).ok(),
            text: shown(body),
            wait: retry_after(headers),
        }
    }

    /// A refusal by the server that gives tokens.
    pub(super) fn no_token(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        Self::NoToken { status, text: shown(body), wait: retry_after(headers) }
    }

    /// Whether trying again may help: broken connections, overload, faults of the server.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Network(error) => {
                !error.is_builder() && !error.is_redirect() && !is_about_certificates(error)
            }
            Self::Ended(_) => true,
            Self::Refused { status, wait, errors, .. } => {
                wait.is_none_or(|wait| wait <= LONGEST_WAIT)
                    && (is_busy(*status) || has(errors, &[OciErrorCode::Toomanyrequests]))
            }
            Self::NoToken { status, wait, .. } => {
                wait.is_none_or(|wait| wait <= LONGEST_WAIT) && is_busy(*status)
            }
            Self::Final(_) => false,
        }
    }

    /// How often a request may be made in all before its failure counts. Each silence costs a long time, and a name that nobody
    /// knows will not be known a moment later.
    pub(super) fn attempts(&self) -> usize {
        match self {
            Self::Network(error) if is_about_names(error) => 2,
            Self::Network(error) if error.is_timeout() => 2,
            _ => usize::MAX,
        }
    }

    /// Whether the server took the connection and then said nothing.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Network(error) if error.is_timeout())
    }

    /// How long the server wants us to stay away.
    pub(super) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Refused { wait, .. } | Self::NoToken { wait, .. } => *wait,
            _ => None,
        }
    }

    /// Whether the server does not know what was asked for.
    pub(super) fn is_not_found(&self) -> bool {
        let unknown =
            [OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound];
        match self {
            Self::Refused { status, errors, .. } => *status == 404 || has(errors, &unknown),
            _ => false,
        }
    }

    /// Whether nobody answered, as when there is no network.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Network(error) => {
                error.is_connect() && !is_about_certificates(error) || error.is_timeout()
            }
            _ => false,
        }
    }

    /// In words that help. `name` is what was asked for, `who` says as whom.
    pub(super) fn explain(self, name: &str, who: &str) -> Error {
        let registry = name.split('/').next().unwrap_or(name).to_owned();
        let login = format!(
            "if it is private, log in with `podman login {registry}`, or use --creds or --authfile"
        );
        match self {
            Self::Final(error) => error,
            Self::NoToken { status, text, wait } => {
                if is_busy(status) {
                    return anyhow!("{registry} gives no token: {}", busy(status, wait));
                }
                anyhow!(
                    "the registry refuses {name}, asked {who}: it gives no token ({status}: {text}); {login}"
                )
            }
            Self::Refused { status, ref errors, ref text, wait } => {
                let text = errors.as_ref().map_or_else(|| text.clone(), said);
                if self.is_not_found() {
                    anyhow!("the registry has no {name}: {status} {text}")
                } else if matches!(status, 401 | 403)
                    || has(errors, &[OciErrorCode::Denied, OciErrorCode::Unauthorized])
                {
                    anyhow!("the registry refuses {name}, asked {who}: {status} {text}; {login}")
                } else if is_busy(status) {
                    anyhow!("fetching {name}: {}", busy(status, wait))
                } else {
                    anyhow!("fetching {name}: the registry answers {status} {text}")
                }
            }
            Self::Network(error) if is_about_certificates(&error) => {
                let reason = chain(&error);
                if reason.contains("CaUsedAsEndEntity") {
                    return anyhow!(
                        "fetching {name}: the registry's certificate is its own authority; \
                         give it with --cert-dir, or trust anybody with --tls-verify=false"
                    );
                }
                anyhow!(
                    "fetching {name}: the registry's certificate is not accepted: {reason}; \
                     give its authority's certificate with --cert-dir, or trust anybody with --tls-verify=false"
                )
            }
            Self::Network(error) if is_about_names(&error) => anyhow!(
                "fetching {name}: the host of {registry} is not known ({}); check the name and the network",
                innermost(&error)
            ),
            Self::Network(error) if error.is_timeout() => {
                anyhow!("fetching {name}: {registry} does not answer: {}", chain(&error))
            }
            Self::Network(error) => anyhow!("fetching {name}: {}", chain(&error)),
            Self::Ended(error) => anyhow!(error).context(format!("fetching {name}")),
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        // Addresses may carry signatures of the storage that a registry redirects to.
        Self::Network(error.without_url())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(error) => f.write_str(&chain(error)),
            Self::Ended(error) => error.fmt(f),
            Self::Refused { status, text, .. } => write!(f, "answer {status}: {text}"),
            Self::NoToken { status, text, .. } => write!(f, "no token, answer {status}: {text}"),
            Self::Final(error) => write!(f, "{error:#}"),
        }
    }
}

fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}

fn busy(status: u16, wait: Option<Duration>) -> String {
    let asks = match wait {
        Some(wait) if wait > LONGEST_WAIT => {
            format!(", and asks to come back in {} minutes", wait.as_secs().div_ceil(60))
        }
        _ => String::new(),
    };
    match status {
        429 => format!(
            "the registry wants fewer requests (429){asks}; logging in often raises its limit"
        ),
        _ => format!("the registry has trouble (it answers {status}){asks}"),
    }
}

fn has(errors: &Option<OciEnvelope>, codes: &[OciErrorCode]) -> bool {
    errors
        .as_ref()
        .is_some_and(|envelope| envelope.errors.iter().any(|error| codes.contains(&error.code)))
}

fn said(envelope: &OciEnvelope) -> String {
    let messages = envelope.errors.iter().map(|error| error.message.as_str());
    shown(Vec::from_iter(messages).join("; ").as_bytes())
}

/// The beginning of a text, on one line and without anything that moves a cursor.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect()
}

/// The error and its causes; reqwest tells the interesting part last.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The last cause.
fn innermost(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

/// Whether the name of the host could not be looked up.
fn is_about_names(error: &reqwest::Error) -> bool {
    error.is_connect() && chain(error).contains("dns error")
}

/// Whether TLS did not come about because of somebody's certificate, which no repetition mends.
fn is_about_certificates(error: &reqwest::Error) -> bool {
    let text = chain(error);
    ["certificate", "received fatal alert"].iter().any(|sign| text.contains(sign))
}

/// `Retry-After` in either of its forms (RFC 9110, 10.2.3). A date is taken relative to the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = seconds(headers.get(DATE)?.to_str().ok()?)?;
    Some(Duration::from_secs(seconds(value)?.saturating_sub(now)))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the form that all servers have to send.
fn seconds(date: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<&str> = date.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = words[..] else { return None };
    let number = |text: &str| text.parse::<u64>().ok();
    let month = MONTHS.find(month).filter(|at| at % 3 == 0 && month.len() == 3)? as u64 / 3;
    let (year, day) = (number(year).filter(|year| (1970..10_000).contains(year))?, number(day)?);
    // Years begin in March here, so that the day that may not be there is the last.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    /// Days from the first of March of the year 0 to 1970, plus one, as days of a month begin with 1.
    const EPOCH: u64 = 719_469;
    Some(
        days.checked_sub(EPOCH)? * 86_400
            + number(hour)? * 3600
            + number(minute)? * 60
            + number(second)?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Failure {
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.insert(name, value.parse().unwrap());
        }
        Failure::refused(status, &map, body.as_bytes())
    }

    #[test]
    fn the_server_says_how_long_to_wait() {
        let wait = |headers: &[_]| refused(429, headers, "").wait();
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        let date = ("date", "Wed, 28 Feb 2024 23:59:50 GMT");
        let later = ("retry-after", "Thu, 29 Feb 2024 00:00:05 GMT");
        assert_eq!(wait(&[date, later]), Some(Duration::from_secs(15)));
        assert_eq!(wait(&[later]), None);
        assert_eq!(wait(&[("date", later.1), ("retry-after", date.1)]), Some(Duration::ZERO));
        assert_eq!(wait(&[date, ("retry-after", "soon")]), None);
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    }

    #[test]
    fn what_passes_and_what_does_not() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(refused(status, &[], "").is_passing(), "{status}");
        }
        for status in [400, 401, 403, 404, 416] {
            assert!(!refused(status, &[], "").is_passing(), "{status}");
        }
        assert!(!refused(429, &[("retry-after", "3600")], "").is_passing());
        assert!(refused(403, &[], r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#).is_passing());
    }

    #[test]
    fn people_are_told_what_to_do() {
        let explain = |failure: Failure| failure.explain("x.io/y:1", "without a login").to_string();
        let denied = explain(refused(
            403,
            &[],
            r#"{"errors":[{"code":"DENIED","message":"no\u001b[2J\nway"}]}"#,
        ));
        assert!(denied.contains("asked without a login: 403 no[2J way; if"), "{denied}");
        assert!(denied.contains("podman login x.io"), "{denied}");
        let late = explain(refused(429, &[("retry-after", "3601")], ""));
        assert!(late.contains("61 minutes"), "{late}");
        let gone = explain(refused(404, &[], "<html>"));
        assert!(gone.starts_with("the registry has no x.io/y:1"), "{gone}");
    }
}
