//! This module does one HTTP exchange with an ESS or a CSS, limited in time and bytes, and maps its failures
//! to [`MmsError`].

use std::error::Error;
use std::time::Duration;

use armor_policy::escaped;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode};

use crate::error::MmsError;
use crate::object::ObjectStatus;

/// Maximum number of bytes kept of an error's text.
const MAX_ERROR_TEXT: u64 = 1024;
/// Maximum size of a list in bytes: some 10,000 metadata records.
const MAX_LIST: u64 = 16 << 20;
/// Maximum size of an object's state in bytes: it is one word.
const MAX_STATE: u64 = 256;

/// Returns the settings of every client: no redirect sends credentials elsewhere, and idle connections do not
/// pile up.
pub(crate) fn builder(tls: rustls::ClientConfig) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(Duration::from_secs(30))
}

/// Text for an answer that no sync service gives.
pub(crate) const PAGE: &str = "a page for people (HTML)";

/// Returns whether an answer claims to be HTML.
pub(crate) fn is_page(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

/// Returns a server's text on one line, with control characters escaped.
fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    escaped(text.split_whitespace().collect::<Vec<_>>().join(" ").as_bytes())
}

/// A `Peer` is a server and the time limit of one exchange with it, body included.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) timeout: Duration,
}

impl Peer {
    /// Sends a request and returns the answer's head, whatever its status.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, MmsError> {
        request.timeout(self.timeout).send().await.map_err(|e| self.failure(e))
    }

    /// Returns the whole body if it has no more than `limit` bytes; a longer one is not read to its end.
    pub(crate) async fn body(&self, mut response: Response, limit: u64) -> Result<Vec<u8>, MmsError> {
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(MmsError::TooLarge { limit });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failure(e))? {
            if body.len() as u64 + chunk.len() as u64 > limit {
                return Err(MmsError::TooLarge { limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Returns the error for an answer with an unexpected status.
    pub(crate) async fn rejection(&self, response: Response) -> MmsError {
        let status = response.status();
        let text = if is_page(&response) {
            PAGE.to_owned()
        } else {
            match self.body(response, MAX_ERROR_TEXT).await {
                Ok(body) => one_line(&body),
                Err(e) => format!("({e})"),
            }
        };
        let text =
            if text.is_empty() { status.canonical_reason().unwrap_or("no reason given") } else { &text };
        MmsError::Rejected { server: self.name.clone(), status: status.as_u16(), text: text.to_owned() }
    }

    /// Returns `Ok` for any 2xx status.
    pub(crate) async fn done(&self, response: Response) -> Result<(), MmsError> {
        if response.status().is_success() { Ok(()) } else { Err(self.rejection(response).await) }
    }

    /// Returns the body of a 2xx answer, at most `limit` bytes.
    pub(crate) async fn content(&self, response: Response, limit: u64) -> Result<Vec<u8>, MmsError> {
        if response.status().is_success() {
            self.body(response, limit).await
        } else {
            Err(self.rejection(response).await)
        }
    }

    /// Returns the state of an object; `None` if there is no such object.
    pub(crate) async fn state(
        &self,
        answer: Result<Response, MmsError>,
    ) -> Result<Option<ObjectStatus>, MmsError> {
        match answer {
            Err(MmsError::UnknownObject { .. }) => Ok(None),
            answer => {
                let word = self.content(answer?, MAX_STATE).await?;
                Ok(Some(ObjectStatus::parse(&String::from_utf8_lossy(&word))))
            }
        }
    }

    /// Returns `Ok` if the object is gone after a request to remove it, even if it did not exist. The servers
    /// report a missing object in several ways, 400 among them, so the `state` that they then return decides.
    pub(crate) async fn gone(
        &self,
        answer: Result<Response, MmsError>,
        state: impl Future<Output = Result<Option<ObjectStatus>, MmsError>>,
    ) -> Result<(), MmsError> {
        let outcome = match answer {
            Err(MmsError::UnknownObject { .. }) => return Ok(()),
            answer => self.done(answer?).await,
        };
        match outcome {
            Err(MmsError::Rejected { status: 400, .. })
                if matches!(state.await?, None | Some(ObjectStatus::Consumed | ObjectStatus::Deleted)) =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Returns a JSON list; both servers answer 404 if there is nothing.
    pub(crate) async fn json_list<T: serde::de::DeserializeOwned>(
        &self,
        response: Response,
    ) -> Result<Vec<T>, MmsError> {
        match response.status() {
            StatusCode::NOT_FOUND => Ok(Vec::new()),
            _ => {
                let body = self.content(response, MAX_LIST).await?;
                let list: Option<Vec<T>> = serde_json::from_slice(&body)
                    .map_err(|e| MmsError::BadAnswer { server: self.name.clone(), reason: e.to_string() })?;
                Ok(list.unwrap_or_default())
            }
        }
    }

    fn failure(&self, error: reqwest::Error) -> MmsError {
        if error.is_timeout() {
            return MmsError::Timeout { server: self.name.clone(), after: self.timeout };
        }
        let mut reason = String::new();
        let error = error.without_url();
        let mut cause: Option<&dyn Error> = Some(&error);
        while let Some(current) = cause {
            let text = current.to_string();
            // Wrappers repeat their cause's text; each text appears once.
            if !reason.contains(&text) {
                if !reason.is_empty() {
                    reason.push_str(": ");
                }
                reason.push_str(&text);
            }
            cause = current.source();
        }
        MmsError::Unreachable { server: self.name.clone(), reason }
    }
}
