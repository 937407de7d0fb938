//! Requests to one registry: which protocol it speaks, who we are to it, tokens.
//!
//! ```text
//! GET /v2/            ─► 200, or 401 with a challenge ─► token server ─► Authorization for what follows
//! GET /v2/NAME/…      ─► 401 again: the token has run out; another one
//! ```
//!
//! Specifications: OCI distribution 1.1, docker's token authentication.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_auth::ChallengeParser;
use oci_client::Reference;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE,
    WWW_AUTHENTICATE,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Identity, RequestBuilder, Response, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::auth::Credentials;
use super::certs::Certificates;
use super::failure::Failure;
use super::tls;
use crate::limits::Limits;
use crate::oci::manifest::MAXIMUM_DOCUMENT;

/// How long a registry may take to answer a connection.
const CONNECT: Duration = Duration::from_secs(20);

/// How long the answer to the first request may take; it needs no thought.
const GREETING: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });

/// How long it may be silent in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 60 });

/// Redirects one after the other, as other clients follow them.
const MOST_REDIRECTS: usize = 10;

/// The largest answer of a token server; real ones have some 4 KiB.
const LARGEST_TOKEN: u64 = 1 << 20;

const USER_AGENT: &str = concat!("bootpress/", env!("CARGO_PKG_VERSION"));

/// A registry as one image in it is reached.
pub(super) struct Endpoint {
    pub(super) client: Client,
    /// `https://quay.io`.
    pub(super) base: String,
    pub(super) reference: Reference,
    credentials: Credentials,
    pub(super) authorization: Mutex<Option<HeaderValue>>,
    /// How long it may take for [`Limits::PACE`] bytes.
    pub(super) patience: Duration,
    purpose: Purpose,
}

/// What a registry is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To fetch.
    Read,
    /// To fetch and to send.
    Write,
}

/// Which protocols may be tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Security {
    /// Whether certificates count.
    pub(super) verify: bool,
    /// Whether plain HTTP will do if TLS does not come about.
    pub(super) plain: bool,
}

/// An answer's body, read up to a limit.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
}

impl Endpoint {
    /// Finds out how the registry speaks, and logs in if it wants that.
    pub(super) async fn connect(
        reference: &Reference,
        credentials: Credentials,
        certificates: &Certificates,
        security: Security,
        patience: Duration,
        purpose: Purpose,
    ) -> Result<Self, Failure> {
        let registry = reference.resolve_registry();
        let client = client(certificates, security, is_loopback(registry), purpose);
        let client = client.map_err(Failure::Final)?;
        let mut endpoint = Self {
            client,
            base: format!("https://{registry}"),
            reference: reference.clone(),
            credentials,
            authorization: Mutex::new(None),
            patience,
            purpose,
        };
        let encrypted = match endpoint.greet().await {
            Err(failure @ Failure::Network(_)) if security.plain => failure,
            other => return other.map(|()| endpoint),
        };
        endpoint.base = format!("http://{registry}");
        match endpoint.greet().await {
            Ok(()) => Ok(endpoint),
            // It spoke no TLS, and then not at all: that is the error to tell.
            Err(silence) if silence.is_silence() => Err(silence),
            // Who answers plain HTTP with 400 speaks TLS, and what went wrong there is the error to tell.
            Err(Failure::Network(_) | Failure::Refused { status: 400, .. }) => Err(encrypted),
            Err(failure) => Err(failure),
        }
    }

    /// The first request. Its answer tells how to log in.
    async fn greet(&self) -> Result<(), Failure> {
        let url = format!("{}/v2/", self.base);
        let answer = self.send(self.client.get(&url).timeout(GREETING)).await?;
        match answer.status().as_u16() {
            401 => self.log_in(answer.headers(), None).await,
            status @ (400 | 408 | 429 | 500..) => {
                let headers = answer.headers().clone();
                let body = read(answer, MAXIMUM_DOCUMENT, self.patience).await?;
                Err(Failure::refused(status, &headers, &body))
            }
            // Not all speak of themselves; what is asked next will tell.
            _ => Ok(()),
        }
    }

    /// Who we are there, for error messages.
    pub(super) fn who(&self) -> String {
        self.credentials.shown()
    }

    /// Sends a request, and waits for the head of the answer.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        match tokio::time::timeout(self.patience, request.send()).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::Final(anyhow!(
                "the server did not answer in {} seconds; raise the limit with --max-wait",
                self.patience.as_secs()
            ))),
        }
    }

    /// Watches over the pace of an answer.
    pub(super) fn pace(&self) -> Pace {
        Pace::new(self.patience)
    }

    /// A document below the image's repository, such as `manifests/latest`.
    pub(super) async fn document(&self, path: &str, accept: &str) -> Result<Body, Failure> {
        let mut headers = HeaderMap::new();
        headers
            .insert(ACCEPT, HeaderValue::from_str(accept).map_err(|e| Failure::Final(e.into()))?);
        let answer = self.get(path, headers).await?;
        let media_type = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let bytes = read(answer, MAXIMUM_DOCUMENT, self.patience).await?;
        Ok(Body { bytes, media_type })
    }

    /// A blob from a byte on, and the byte with which the answer begins.
    pub(super) async fn blob(&self, digest: &str, from: u64) -> Result<(Response, u64), Failure> {
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-"));
            headers.insert(RANGE, range.map_err(|e| Failure::Final(e.into()))?);
        }
        let answer = self.get(&format!("blobs/{digest}"), headers).await?;
        if answer.status().as_u16() != 206 {
            return Ok((answer, 0));
        }
        // Some send another part than the one that was asked for.
        let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let begins = range.and_then(begin_of).filter(|begins| *begins <= from);
        let begins = begins.ok_or_else(|| {
            let range = range.unwrap_or("none").to_owned();
            Failure::Final(anyhow!(
                "bytes from {from} on were asked for, and the answer has another range: {range}"
            ))
        })?;
        Ok((answer, begins))
    }

    async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response, Failure> {
        let url = format!("{}/v2/{}/{path}", self.base, self.reference.repository());
        let mut again = true;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let mut request = self.client.get(&url).headers(headers.clone());
            if let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let answer = self.send(request).await?;
            match answer.status().as_u16() {
                200 | 206 => return Ok(answer),
                // The token has run out, or there was none because the registry did not say that it wants one.
                401 if again => {
                    again = false;
                    self.log_in(answer.headers(), authorization.as_ref()).await?;
                }
                status => {
                    let headers = answer.headers().clone();
                    let body =
                        read(answer, MAXIMUM_DOCUMENT, self.patience).await.unwrap_or_default();
                    return Err(Failure::refused(status, &headers, &body));
                }
            }
        }
    }

    /// Answers a challenge, unless somebody else has since `used` was refused.
    pub(super) async fn log_in(
        &self,
        headers: &HeaderMap,
        used: Option<&HeaderValue>,
    ) -> Result<(), Failure> {
        let mut authorization = self.authorization.lock().await;
        if authorization.as_ref() != used {
            return Ok(());
        }
        let mut basic = false;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = header.to_str() else { continue };
            for challenge in ChallengeParser::new(text).flatten() {
                let parameter = |name: &str| {
                    let mut all = challenge.params.iter();
                    all.find(|(key, _)| key.eq_ignore_ascii_case(name))
                        .map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("Bearer") {
                    let Some(realm) = parameter("realm") else { continue };
                    let token = self.token(&realm, parameter("service").as_deref()).await?;
                    *authorization = Some(secret(&format!("Bearer {token}"))?);
                    return Ok(());
                }
                basic |= challenge.scheme.eq_ignore_ascii_case("Basic");
            }
        }
        if let (true, Credentials::Password { user, password, .. }) = (basic, &self.credentials) {
            *authorization = Some(secret(&basic_authorization(user, password))?);
        }
        // Else the next request tells that it is not welcome.
        Ok(())
    }

    /// A token for the repository.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<String, Failure> {
        let wrong = |reason: String| Failure::Final(anyhow!("logging in at {realm}: {reason}"));
        let mut url = Url::parse(realm).map_err(|error| wrong(error.to_string()))?;
        let knows_us = !matches!(self.credentials, Credentials::Anonymous);
        if knows_us && url.scheme() != "https" && self.base.starts_with("https:") {
            return Err(wrong(
                "the registry asks for credentials to be sent in the clear".to_owned(),
            ));
        }
        let actions = match self.purpose {
            Purpose::Read => "pull",
            Purpose::Write => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.reference.repository());
        let mut query = vec![("scope", scope.as_str())];
        query.extend(service.map(|service| ("service", service)));
        let request = match &self.credentials {
            Credentials::IdentityToken { token, .. } => {
                let mut form = url.clone();
                query.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "bootpress"),
                    ("refresh_token", token),
                ]);
                form.query_pairs_mut().clear().extend_pairs(query);
                let body = form.query().unwrap_or_default().to_owned();
                let request = self.client.post(url).body(body);
                request.header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            }
            Credentials::Password { user, password, .. } => {
                query.push(("account", user));
                url.query_pairs_mut().extend_pairs(query);
                let value = secret(&basic_authorization(user, password))?;
                self.client.get(url).header(AUTHORIZATION, value)
            }
            Credentials::Anonymous => {
                url.query_pairs_mut().extend_pairs(query);
                self.client.get(url)
            }
        };
        let answer = self.send(request).await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = read(answer, LARGEST_TOKEN, self.patience).await?;
        if status != 200 {
            return Err(Failure::no_token(status, &headers, &body));
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let given: Token =
            serde_json::from_slice(&body).map_err(|error| wrong(format!("no token: {error}")))?;
        let token = given.token.or(given.access_token).filter(|token| !token.is_empty());
        token.ok_or_else(|| wrong("the answer has no token".to_owned()))
    }
}

/// Reads an answer, unless it comes so slowly that it may never end: less than [`Limits::PACE`] bytes in the time that a server is
/// given. Only the time counts in which we wait for it.
pub(super) struct Pace {
    patience: Duration,
    waited: Duration,
    received: u64,
}

impl Pace {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, waited: Duration::ZERO, received: 0 }
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn chunk(
        &mut self,
        answer: &mut Response,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let began = Instant::now();
        let left = self.patience.saturating_sub(self.waited);
        let chunk = tokio::time::timeout(left, answer.chunk()).await;
        let Ok(chunk) = chunk else {
            return Err(Failure::Final(anyhow!(
                "the server sent less than {} KiB in {} seconds; raise the limit with --max-wait",
                Limits::PACE >> 10,
                self.patience.as_secs()
            )));
        };
        let chunk: Option<Vec<u8>> = chunk?.map(Into::into);
        self.waited += began.elapsed();
        self.received += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.received >= Limits::PACE {
            (self.waited, self.received) = (Duration::ZERO, 0);
        }
        Ok(chunk)
    }
}

/// The first byte of a `Content-Range`: `bytes 100-199/200`.
fn begin_of(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

/// A whole answer, if it is not larger than any real one.
pub(super) async fn read(
    mut answer: Response,
    limit: u64,
    patience: Duration,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut pace = Pace::new(patience);
    while let Some(chunk) = pace.chunk(&mut answer).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            let what = format!("a document of over {limit} bytes is larger than any real one");
            return Err(Failure::Final(crate::error::unsupported(what, None)));
        }
    }
    Ok(bytes)
}

fn basic_authorization(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn secret(value: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Failure::Final(anyhow!("the registry's token cannot be sent back")))?;
    value.set_sensitive(true);
    Ok(value)
}

fn client(
    certificates: &Certificates,
    security: Security,
    is_local: bool,
    purpose: Purpose,
) -> Result<Client> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .redirect(redirects(security.verify))
        .user_agent(USER_AGENT)
        .tls_danger_accept_invalid_certs(!security.verify);
    // While a blob is sent there is nothing to read; whoever sends watches over the pace.
    if purpose == Purpose::Read {
        builder = builder.read_timeout(SILENCE);
    }
    if is_local {
        // As with other tools: a proxy's own loopback is not ours.
        builder = builder.no_proxy();
    }
    if security.verify {
        builder = builder.tls_backend_preconfigured(tls::configuration(certificates)?);
    } else if let Some((path, text)) = &certificates.identity {
        let identity = Identity::from_pem(text);
        let context = || format!("reading {} and its key", path.display());
        builder = builder.identity(identity.with_context(context)?);
    }
    builder.build().context("starting the registry client")
}

/// Redirects that are followed: not from TLS to plain HTTP, unless the user verifies nothing. Digests protect what is fetched by
/// digest, but a tag's manifest, tokens, and who asks for what are in the clear then.
pub(in crate::oci) fn redirects(verify: bool) -> Policy {
    Policy::custom(move |attempt| {
        let was_encrypted = attempt.previous().iter().any(|url| url.scheme() == "https");
        if verify && was_encrypted && attempt.url().scheme() != "https" {
            let host = attempt.url().host_str().unwrap_or_default().to_owned();
            return attempt.error(format!(
                "the server redirects from https to plain http (at {host}); \
                 --tls-verify=false allows it"
            ));
        }
        if attempt.previous().len() > MOST_REDIRECTS {
            return attempt.error(format!("more than {MOST_REDIRECTS} redirects"));
        }
        attempt.follow()
    })
}

/// Whether the registry is this machine; then nobody between could change anything, and test registries have no certificate.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_begin_somewhere() {
        assert_eq!(begin_of("bytes 100-199/200"), Some(100));
        assert_eq!(begin_of("bytes */200"), None);
        assert_eq!(begin_of("lines 1-2/3"), None);
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for (registry, loopback) in [
            ("localhost:5000", true),
            ("localhost", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("quay.io", false),
            ("localhost.example.org:5000", false),
            ("10.0.0.1:5000", false),
            ("127.0.0.1.example.org", false),
        ] {
            assert_eq!(is_loopback(registry), loopback, "{registry}");
        }
    }
}
