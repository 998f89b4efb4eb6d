//! What can be asked: each path with its answer.

use std::time::Instant;

use actix::Addr;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::access::{Entrance, Refusal, Request, admit};
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
}

type Monitor = web::Data<Shared>;

/// All paths.
pub(super) fn configure(app: &mut web::ServiceConfig) {
    app.route("/livez", web::get().to(alive))
        .route("/readyz", web::get().to(ready))
        .route("/metrics", web::get().to(metrics))
        .route("/api/v1/status", web::get().to(status))
        .route("/api/v1/outputs", web::get().to(outputs))
        .route("/api/v1/accounts", web::get().to(accounts))
        .route("/api/v1/accounts/{id}", web::get().to(account))
        .route("/api/v1/accounts/{id}/{wish}", web::post().to(urge))
        .route("/-/reload", web::post().to(reload));
}

/// Nobody passes who may not, and no answer is kept or run by a browser.
pub(super) async fn guard(
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
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
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

/// `?state=auth_failed&limit=100&after=ID`
#[derive(Debug, Deserialize)]
struct Page {
    state: Option<AccountState>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn accounts(monitor: Monitor, page: web::Query<Page>) -> HttpResponse {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, MOST_ON_PAGE);
    let query = AccountQuery { state: page.state, after: page.after.as_deref().map(AccountId::from), limit };
    match monitor.coordinator.send(FindAccounts(query)).await {
        Ok(accounts) => {
            let full = accounts.len() == limit;
            let next = accounts.last().filter(|_| full).map(|account| account.identity.id.clone());
            HttpResponse::Ok().json(AccountPage { accounts, next })
        }
        Err(_) => stopping(),
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
