//! The payment gateway over HTTP/1.1: where it is, and what is asked. What its answers mean is in
//! `answers`.
//!
//! Each request may be sent again, because the gateway knows it by its key. So whatever is not
//! clearly an answer (nothing in time, half of one, one that makes no sense) counts as no answer.

use std::{error::Error, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rust_decimal::Decimal;
use serde::Serialize;
use streamfleet::HandlerError;
use streamfleet::environment::variable;
use streamfleet::secret::{self, Secret, SecretError};

use super::answers::{Charge, read_charge, read_void};
use super::decide::Refunded;

const VARIABLE: &str = "STREAMFLEET_GATEWAY";
const TIMEOUT_VARIABLE: &str = "STREAMFLEET_GATEWAY_TIMEOUT_MS";
const TOKEN_VARIABLE: &str = "STREAMFLEET_GATEWAY_TOKEN_FILE";
/// What systemd's `LoadCredential=` must call the token.
const TOKEN_CREDENTIAL: &str = "gateway-token";
/// How long one request may take, unless the environment says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take at most, of that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of the largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;

/// The environment does not say where the gateway is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(
        "STREAMFLEET_GATEWAY is not set: it says where the payment gateway is, as http://host:port. To run one that moves no money: sandbox-gateway --listen 127.0.0.1:8650"
    )]
    Missing,
    #[error(
        "STREAMFLEET_GATEWAY={0:?} is not http://host:port (no user, no path, and no TLS: put a proxy beside the worker for that)"
    )]
    Address(String),
    #[error(
        "STREAMFLEET_GATEWAY_TIMEOUT_MS={0:?} is not a number of milliseconds from 1 to 86400000"
    )]
    Timeout(String),
    #[error("the token for the payment gateway: {0}")]
    Token(#[from] SecretError),
    #[error("the token for the payment gateway must be of ASCII characters")]
    TokenText,
}

/// A gateway.
pub(crate) struct Gateway {
    client: Client<HttpConnector, Full<Bytes>>,
    /// `host:port`.
    authority: String,
    /// What it knows us by, if it asks; and the header that says so.
    token: Option<(Secret, HeaderValue)>,
    timeout: Duration,
}

#[derive(Serialize)]
struct ChargeRequest {
    order_id: i64,
    /// Serialised as a string, which nobody can take for a float.
    amount: Decimal,
}

impl Gateway {
    /// Reads `STREAMFLEET_GATEWAY`, `STREAMFLEET_GATEWAY_TOKEN_FILE` and `STREAMFLEET_GATEWAY_TIMEOUT_MS`.
    pub(crate) fn from_env() -> Result<Self, SetupError> {
        let address = variable(VARIABLE).ok_or(SetupError::Missing)?;
        let authority = authority(&address.to_string_lossy())?;
        let timeout = match variable(TIMEOUT_VARIABLE) {
            Some(text) => milliseconds(&text.to_string_lossy())?,
            None => TIMEOUT,
        };
        let token = secret::file(variable(TOKEN_VARIABLE), TOKEN_CREDENTIAL);
        let token = token
            .map(|file| {
                let token = Secret::read(&file)?;
                let header = bearer(&token)?;
                Ok::<_, SetupError>((token, header))
            })
            .transpose()?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT.min(timeout)));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            client,
            authority,
            token,
            timeout,
        })
    }

    /// Charges an order; asked again under the same key, it is answered the same.
    pub(crate) async fn charge(
        &self,
        key: &str,
        order_id: i64,
        amount: Decimal,
    ) -> Result<Charge, HandlerError> {
        let body = serde_json::to_vec(&ChargeRequest { order_id, amount })?;
        let (status, answer) = self.post("/charges", Some(key), body).await?;
        read_charge(status, &answer)
    }

    /// Voids a key: pays back what was charged under it, and keeps anything from being charged later.
    pub(crate) async fn void(&self, key: &str) -> Result<Option<Refunded>, HandlerError> {
        let path = format!("/charges/{key}/void");
        let (status, answer) = self.post(&path, None, Vec::new()).await?;
        read_void(status, &answer)
    }

    /// An answer may repeat the request, and is quoted where it makes no sense.
    fn discreet(&self, answer: Bytes) -> Bytes {
        let text = String::from_utf8_lossy(&answer);
        match &self.token {
            Some((token, _)) if text.contains(token.expose()) => {
                text.replace(token.expose(), "***").into()
            }
            _ => answer,
        }
    }

    async fn post(
        &self,
        path: &str,
        key: Option<&str>,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), HandlerError> {
        let uri = format!("http://{}{path}", self.authority);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&uri)
            .header(CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some((_, header)) = &self.token {
            request = request.header(AUTHORIZATION, header);
        }
        let request = request.body(Full::from(body))?;
        let exchange = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|error| away(&uri, &error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await;
            let body = body.map_err(|error| away(&uri, &*error))?;
            Ok((status, self.discreet(body.to_bytes())))
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answered) => answered,
            Err(_) => Err(HandlerError::unavailable(format!(
                "{uri}: no answer within {:?}; it may have been carried out, and is asked again under the same key",
                self.timeout
            ))),
        }
    }
}

/// An error of the way to the gateway, with its causes.
fn away(uri: &str, error: &(dyn Error + 'static)) -> HandlerError {
    let mut told = format!("{uri}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        told += &format!(": {inner}");
        cause = inner.source();
    }
    HandlerError::unavailable(told)
}

/// The `host:port` of `http://host:port`.
fn authority(address: &str) -> Result<String, SetupError> {
    // What stands before an `@` could be a password.
    let shown = address.rsplit('@').next().unwrap_or_default();
    let wrong = || SetupError::Address(shown.to_owned());
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
    match uri.authority() {
        Some(authority) if plain && uri.query().is_none() && !authority.as_str().contains('@') => {
            Ok(authority.to_string())
        }
        _ => Err(wrong()),
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, SetupError> {
    let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
    let mut value = value.map_err(|_| SetupError::TokenText)?;
    // Shown as such by whatever logs headers.
    value.set_sensitive(true);
    Ok(value)
}

fn milliseconds(text: &str) -> Result<Duration, SetupError> {
    let number = text.parse().ok().filter(|n| (1..=86_400_000).contains(n));
    number
        .map(Duration::from_millis)
        .ok_or_else(|| SetupError::Timeout(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(
            authority("http://127.0.0.1:8650").unwrap(),
            "127.0.0.1:8650"
        );
        assert_eq!(authority("http://gateway/").unwrap(), "gateway");
        for wrong in [
            "",
            "gateway",
            "127.0.0.1:8650",
            "https://gateway",
            "http://gateway/v1",
            "http://gateway?a=b",
            "http://me:secret@gateway",
        ] {
            let error = authority(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert_eq!(milliseconds("250").unwrap(), Duration::from_millis(250));
        for wrong in ["0", "1s", "-1", "86400001"] {
            assert!(milliseconds(wrong).is_err(), "{wrong}");
        }
    }
}
