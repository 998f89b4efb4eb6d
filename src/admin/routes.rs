//! What can be asked: each path with its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, Route, guard, web};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::access::{Entrance, Refusal, Request, admit};
use super::page::{self, Wanted};
use crate::coordinator::actor::Coordinator;
use crate::coordinator::heartbeat::Heartbeats;
use crate::event::{AccountId, AccountState};
use crate::messages::{FindAccounts, GetAccount, GetStatus, Reload, ReloadError, Scrape, Urge, Wish};
use crate::status::{AccountPage, AccountQuery};

/// Accounts on one page, unless another number is asked for, and at most.
const PAGE: usize = 100;
const MOST_ON_PAGE: usize = 1000;

/// What every request may need.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) coordinator: Addr<Coordinator>,
    pub(super) entrance: Entrance,
    pub(super) heartbeats: Heartbeats,
    /// One permit per page that is told what is new.
    pub(super) live: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(coordinator: Addr<Coordinator>, entrance: Entrance, heartbeats: Heartbeats) -> Self {
        Self { coordinator, entrance, heartbeats, live: Arc::new(Semaphore::new(MOST_LIVE)) }
    }
}

/// Only what comes from here; nothing of it inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// How often a page is told what is new.
const LIVE: Duration = Duration::from_secs(2);

/// Pages that are told at the same time; the others are as true as when they were loaded.
const MOST_LIVE: usize = 16;

type Monitor = web::Data<Shared>;

/// All paths.
pub(super) fn configure(app: &mut web::ServiceConfig) {
    app.route("/", read().to(overview))
        .route("/accounts/{id}", read().to(account_page))
        .route("/live", read().to(live))
        .route("/style.css", read().to(style))
        .route("/live.js", read().to(script))
        .route("/livez", read().to(alive))
        .route("/readyz", read().to(ready))
        .route("/metrics", read().to(metrics))
        .route("/api/v1/status", read().to(status))
        .route("/api/v1/outputs", read().to(outputs))
        .route("/api/v1/accounts", read().to(accounts))
        .route("/api/v1/accounts/{id}", read().to(account))
        .route("/api/v1/accounts/{id}/{wish}", web::post().to(urge))
        .route("/-/reload", web::post().to(reload));
}

/// GET, and HEAD for those who only want to know whether there is an answer.
fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// A query that cannot be read, answered like everything else.
pub(super) fn queries() -> web::QueryConfig {
    web::QueryConfig::default().error_handler(|error, _| {
        let message = error.to_string();
        InternalError::from_response(error, problem(StatusCode::BAD_REQUEST, &message)).into()
    })
}

/// Nobody passes who may not, and no answer is kept or run by a browser.
pub(super) async fn admit_only(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let entrance = request.app_data::<Monitor>().map(|shared| shared.entrance);
    let asked = Request {
        reads: request.method().is_safe(),
        host: request.headers().get(HOST).and_then(|host| host.to_str().ok()),
    };
    let admitted = entrance.map_or(Err(Refusal::WrongHost), |entrance| admit(entrance, asked));
    let mut response = match admitted {
        Ok(()) => next.call(request).await?.map_into_left_body(),
        Err(refusal) => request.into_response(refused(refusal)).map_into_right_body(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Ok(response)
}

fn refused(refusal: Refusal) -> HttpResponse {
    let status = match refusal {
        Refusal::WrongHost => StatusCode::MISDIRECTED_REQUEST,
        Refusal::ReadOnly => StatusCode::FORBIDDEN,
    };
    problem(status, &refusal.to_string())
}

fn problem(status: StatusCode, message: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": message }))
}

/// A coordinator that is gone: the process ends.
fn stopping() -> HttpResponse {
    problem(StatusCode::SERVICE_UNAVAILABLE, "the monitor is stopping")
}

pub(super) async fn unknown() -> HttpResponse {
    problem(StatusCode::NOT_FOUND, "there is nothing here; see /api/v1/status")
}

/// `?state=auth_failed&q=part-of-an-id&after=ID`
#[derive(Debug, Deserialize)]
struct Shown {
    #[serde(default)]
    state: String,
    #[serde(default)]
    q: String,
    after: Option<String>,
}

impl Shown {
    fn wanted(&self) -> Wanted {
        let state = AccountState::ALL.into_iter().find(|state| state.as_str() == self.state);
        Wanted { state, text: crate::text::line(self.q.trim(), 128) }
    }
}

fn html(markup: maud::Markup) -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(markup.into_string())
}

async fn overview(monitor: Monitor, shown: web::Query<Shown>) -> HttpResponse {
    let wanted = shown.wanted();
    let query = AccountQuery {
        state: wanted.state,
        text: Some(wanted.text.clone()).filter(|text| !text.is_empty()),
        after: shown.after.as_deref().map(AccountId::from),
        limit: PAGE,
    };
    match (monitor.coordinator.send(GetStatus).await, monitor.page(query).await) {
        (Ok(status), Some(accounts)) => html(page::page(&status, &accounts, &wanted, Timestamp::now())),
        _ => stopping(),
    }
}

async fn account_page(monitor: Monitor, id: web::Path<String>) -> HttpResponse {
    match monitor.coordinator.send(GetAccount(id.as_str().into())).await {
        Ok(Some(account)) => html(page::account_page(&account, Timestamp::now())),
        Ok(None) => no_such(&id),
        Err(_) => stopping(),
    }
}

/// Server-sent events: the overview, whenever it is another than the last time.
async fn live(monitor: Monitor, shown: web::Query<Shown>) -> HttpResponse {
    let wanted = shown.wanted();
    let Ok(permit) = monitor.live.clone().try_acquire_owned() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open");
    };
    let clock = tokio::time::interval(LIVE);
    let told =
        stream::unfold((monitor, clock, wanted, permit), |(monitor, mut clock, wanted, permit)| async move {
            clock.tick().await;
            let status = monitor.coordinator.send(GetStatus).await.ok()?;
            let text = page::overview(&status, &wanted, Timestamp::now()).into_string();
            let line = serde_json::to_string(&text).ok()?;
            Some((Ok::<_, Error>(Bytes::from(format!("data: {line}\n\n"))), (monitor, clock, wanted, permit)))
        });
    HttpResponse::Ok().content_type("text/event-stream").streaming(told)
}

async fn style() -> HttpResponse {
    HttpResponse::Ok().content_type("text/css; charset=utf-8").body(page::STYLE)
}

async fn script() -> HttpResponse {
    HttpResponse::Ok().content_type("text/javascript; charset=utf-8").body(page::LIVE)
}

async fn alive(monitor: Monitor) -> HttpResponse {
    if monitor.heartbeats.all_alive(Instant::now()) {
        HttpResponse::Ok().json(json!({ "alive": true }))
    } else {
        problem(StatusCode::SERVICE_UNAVAILABLE, "a thread of the monitor hangs")
    }
}

async fn ready(monitor: Monitor) -> HttpResponse {
    match monitor.coordinator.send(GetStatus).await {
        Ok(status) if status.ready => HttpResponse::Ok().json(json!({ "ready": true })),
        Ok(status) => {
            HttpResponse::ServiceUnavailable().json(json!({ "ready": false, "because": status.not_ready }))
        }
        Err(_) => stopping(),
    }
}

async fn metrics(monitor: Monitor) -> HttpResponse {
    match monitor.coordinator.send(Scrape).await {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text),
        Err(_) => stopping(),
    }
}

async fn status(monitor: Monitor) -> HttpResponse {
    match monitor.coordinator.send(GetStatus).await {
        Ok(status) => HttpResponse::Ok().json(status),
        Err(_) => stopping(),
    }
}

async fn outputs(monitor: Monitor) -> HttpResponse {
    match monitor.coordinator.send(GetStatus).await {
        Ok(status) => HttpResponse::Ok().json(json!({ "outputs": status.outputs })),
        Err(_) => stopping(),
    }
}

/// `?state=auth_failed&q=part-of-an-id&limit=100&after=ID`
#[derive(Debug, Deserialize)]
struct Page {
    state: Option<AccountState>,
    q: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn accounts(monitor: Monitor, page: web::Query<Page>) -> HttpResponse {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, MOST_ON_PAGE);
    let after = page.after.as_deref().map(AccountId::from);
    let query = AccountQuery { state: page.state, text: page.q.clone(), after, limit };
    match monitor.page(query).await {
        Some(page) => HttpResponse::Ok().json(page),
        None => stopping(),
    }
}

impl Shared {
    async fn page(&self, query: AccountQuery) -> Option<AccountPage> {
        let limit = query.limit;
        let accounts = self.coordinator.send(FindAccounts(query)).await.ok()?;
        let full = accounts.len() == limit;
        let next = accounts.last().filter(|_| full).map(|account| account.identity.id.clone());
        Some(AccountPage { accounts, next })
    }
}

fn no_such(account: &str) -> HttpResponse {
    problem(StatusCode::NOT_FOUND, &format!("there is no account \"{}\"", crate::text::line(account, 128)))
}

async fn account(monitor: Monitor, id: web::Path<String>) -> HttpResponse {
    match monitor.coordinator.send(GetAccount(id.as_str().into())).await {
        Ok(Some(account)) => HttpResponse::Ok().json(account),
        Ok(None) => no_such(&id),
        Err(_) => stopping(),
    }
}

async fn urge(monitor: Monitor, path: web::Path<(String, String)>) -> HttpResponse {
    let (id, wish) = path.into_inner();
    let wish = match wish.as_str() {
        "resume" => Wish::Resume,
        "reconnect" => Wish::Reconnect,
        _ => return unknown().await,
    };
    match monitor.coordinator.send(Urge { account: id.as_str().into(), wish }).await {
        Ok(true) => HttpResponse::Accepted().json(json!({ "account": id })),
        Ok(false) => no_such(&id),
        Err(_) => stopping(),
    }
}

async fn reload(monitor: Monitor) -> HttpResponse {
    match monitor.coordinator.send(Reload).await {
        Ok(Ok(report)) => HttpResponse::Ok().json(report),
        Ok(Err(error)) => {
            let status = match error {
                ReloadError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
                ReloadError::Busy | ReloadError::NoFile => StatusCode::CONFLICT,
                ReloadError::Stopping => return stopping(),
            };
            let problems = match &error {
                ReloadError::Invalid(problems) => problems.clone(),
                _ => Vec::new(),
            };
            HttpResponse::build(status).json(json!({ "error": error.to_string(), "problems": problems }))
        }
        Err(_) => stopping(),
    }
}
