//! HTTP/1.1: one request per connection, few connections at a time, none for long.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use super::Answers;
use crate::metrics::Format;

/// Connections at a time; more wait until one ends.
const CONNECTIONS: usize = 32;
/// How long the head of a request may take, and a connection in all.
const HEAD_TIME: Duration = Duration::from_secs(2);
const WHOLE_TIME: Duration = Duration::from_secs(10);
/// Bytes of the largest head. (hyper takes no less than 8192.)
const MAX_HEAD: usize = 16 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";
const PATHS: &str = "there is /metrics, /healthz and /readyz\n";

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, answers: Arc<Answers>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics cannot be served"),
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: others must end first.
                tracing::debug!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let answers = answers.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| respond(answers.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(MAX_HEAD)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away, or takes too long, is no matter.
            drop(tokio::time::timeout(WHOLE_TIME, connection).await);
        });
    }
}

async fn respond(
    answers: Arc<Answers>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, body) = answer(&answers, &request).await;
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

async fn answer(
    answers: &Answers,
    request: &Request<Incoming>,
) -> (StatusCode, &'static str, String) {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let said = "only GET and HEAD are answered\n".to_owned();
        return (StatusCode::METHOD_NOT_ALLOWED, TEXT, said);
    }
    let told = match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get(ACCEPT);
            let format = wanted(accept.and_then(|accept| accept.to_str().ok()));
            return match answers.metrics(format).await {
                Ok(text) => (StatusCode::OK, format.content_type(), text),
                Err(error) => {
                    let said = format!("the metrics cannot be written: {error}\n");
                    (StatusCode::INTERNAL_SERVER_ERROR, TEXT, said)
                }
            };
        }
        "/healthz" => answers.health(),
        "/readyz" => answers.ready.ask().await,
        _ => return (StatusCode::NOT_FOUND, TEXT, PATHS.to_owned()),
    };
    match told {
        Ok(text) => (StatusCode::OK, TEXT, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, text),
    }
}

/// OpenMetrics for who prefers it, by the weights of an Accept header; else what everyone reads.
fn wanted(accept: Option<&str>) -> Format {
    let weight = |kind: &str| {
        let ranges = accept.unwrap_or_default().split(',');
        let of_kind = ranges.filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            if !parts.next()?.eq_ignore_ascii_case(kind) {
                return None;
            }
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
            Some(weight.unwrap_or(1.0))
        });
        of_kind.fold(0.0, f64::max)
    };
    let open = weight("application/openmetrics-text");
    match open > 0.0 && open >= weight("text/plain") {
        true => Format::OpenMetrics,
        false => Format::Prometheus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_who_prefers_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let open = [
            prometheus,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; q=0.1",
        ];
        for accept in open {
            assert_eq!(wanted(Some(accept)), Format::OpenMetrics, "{accept}");
        }
        let plain = [
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "text/plain, application/openmetrics-text;q=0.9",
            "application/openmetrics-textual",
        ];
        for accept in plain {
            assert_eq!(wanted(Some(accept)), Format::Prometheus, "{accept}");
        }
        assert_eq!(wanted(None), Format::Prometheus);
    }
}
