//! An answer and its body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::Stream;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::error::ApiError;
use super::{API_VERSION, SERVER};

/// Chunks that come as time goes by. After the error nothing comes.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, CutOff>> + Send>>;

/// What was to go on ends here: the connection breaks, so that the client sees that it has not got all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer was cut off")]
pub struct CutOff;

/// The body of an answer.
pub enum Content {
    /// All of it, now.
    Full(Bytes),
    /// Bit by bit.
    Chunks(Chunks),
}

impl Body for Content {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let chunk = match self.get_mut() {
            Self::Full(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()).map(Ok),
            Self::Chunks(chunks) => ready!(chunks.as_mut().poll_next(cx)),
        };
        Poll::Ready(chunk.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Chunks(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Chunks(_) => SizeHint::default(),
        }
    }
}

/// What a handler answers.
pub struct Answer {
    status: StatusCode,
    content_type: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    content: Content,
}

const JSON: &str = "application/json";

impl Answer {
    /// JSON with this status.
    pub fn json(status: StatusCode, value: &Value) -> Self {
        let content = Content::Full(format!("{value}\n").into());
        Self { status, content_type: Some(JSON), headers: Vec::new(), content }
    }

    /// 200 with JSON.
    pub fn ok(value: &Value) -> Self {
        Self::json(StatusCode::OK, value)
    }

    /// 201 with JSON.
    pub fn created(value: &Value) -> Self {
        Self::json(StatusCode::CREATED, value)
    }

    /// 200 with nothing.
    pub fn empty() -> Self {
        let content = Content::Full(Bytes::new());
        Self { status: StatusCode::OK, content_type: None, headers: Vec::new(), content }
    }

    /// 204.
    pub fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, ..Self::empty() }
    }

    /// 200 with plain text.
    pub fn text(text: &'static str) -> Self {
        let content = Content::Full(Bytes::from_static(text.as_bytes()));
        let content_type = Some("text/plain; charset=utf-8");
        Self { status: StatusCode::OK, content_type, headers: Vec::new(), content }
    }

    /// 200 with a stream of JSON.
    pub fn stream(chunks: Chunks) -> Self {
        Self::chunks(Some(JSON), chunks)
    }

    /// 200 with a stream.
    pub fn chunks(content_type: Option<&'static str>, chunks: Chunks) -> Self {
        Self { status: StatusCode::OK, content_type, headers: Vec::new(), content: Content::Chunks(chunks) }
    }

    /// 200 with text.
    pub fn plain(text: String) -> Self {
        Self { content: Content::Full(text.into()), ..Self::text("") }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether its body comes bit by bit.
    pub fn is_stream(&self) -> bool {
        matches!(self.content, Content::Chunks(_))
    }

    /// With what comes bit by bit changed; all else stays.
    #[must_use]
    pub fn map_chunks(mut self, change: impl FnOnce(Chunks) -> Chunks) -> Self {
        self.content = match self.content {
            Content::Full(bytes) => Content::Full(bytes),
            Content::Chunks(chunks) => Content::Chunks(change(chunks)),
        };
        self
    }

    /// With another header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// As hyper sends it, with the headers that every answer has.
    pub fn into_response(self) -> Response<Content> {
        let mut response = Response::new(self.content);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("api-version"), HeaderValue::from_static(API_VERSION));
        headers.insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false"));
        headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
        headers.insert(hyper::header::SERVER, HeaderValue::from_static(SERVER));
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        headers.extend(self.headers);
        response
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        Self::json(error.status, &json!({ "message": error.message }))
    }
}
