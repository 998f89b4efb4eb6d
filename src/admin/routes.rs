//! What can be asked: each path with its answer.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::Addr;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, Route, guard, web};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use log::{info, warn};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::access::{Admitted, Entrance, Proof, Refusal, Request, admit};
use super::members::Registry;
use super::page::{self, Wanted};
use super::query::Query;
use super::token::{Guesses, Token};
use crate::coordinator::actor::Coordinator;
use crate::coordinator::heartbeat::Heartbeats;
use crate::event::{AccountId, AccountState};
use crate::imap::conversation::ToldFrom;
use crate::messages::{
    FindAccounts, FindOutput, GetAccount, GetStatus, Reload, ReloadError, Replay, ReplayError, ReplayReport,
    Scrape, Urge, Wish,
};
use crate::since::Since;
use crate::status::{
    AccountOrder, AccountPage, AccountQuery, OutputList, OutputReport, RetryReport, WishReport,
};

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
    registry: Option<Registry>,
    token: Option<Token>,
    guesses: Arc<Mutex<Guesses>>,
}

impl Shared {
    pub(super) fn new(
        coordinator: Addr<Coordinator>,
        entrance: Entrance,
        heartbeats: Heartbeats,
        registry: Option<Registry>,
        token: Option<Token>,
    ) -> Self {
        let live = Arc::new(Semaphore::new(MOST_LIVE));
        Self { coordinator, entrance, heartbeats, live, registry, token, guesses: Arc::default() }
    }

    /// What a request is worth.
    fn admit(&self, request: &ServiceRequest) -> Result<Admitted, Refusal> {
        let asked = Request {
            reads: request.method().is_safe(),
            health: HEALTH.contains(&request.path()),
            host: request.headers().get(HOST).and_then(|host| host.to_str().ok()),
            foreign: is_foreign(request.headers()),
            proof: self.proof(request),
        };
        admit(self.entrance, asked)
    }

    fn proof(&self, request: &ServiceRequest) -> Proof {
        let (Entrance::Guarded, Some(token)) = (self.entrance, &self.token) else { return Proof::Nothing };
        let shown = token.proof(request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes));
        let address = request.peer_addr().map(|address| address.ip());
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        let (proof, too_many) = guesses.judge(address, shown, Instant::now());
        if let (true, Some(address)) = (too_many, address) {
            warn!("http: {address} has shown too many wrong tokens, and is not listened to for a minute");
        }
        proof
    }
}

/// Whether a page of another site has its reader's browser ask, for itself (Fetch Metadata): a link that a reader follows is
/// his own wish. What is no browser says nothing of it.
fn is_foreign(headers: &HeaderMap) -> bool {
    let says = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    matches!(says("sec-fetch-site"), Some(b"cross-site" | b"same-site"))
        && says("sec-fetch-mode") != Some(b"navigate")
}

/// What is told to anybody: yes or no.
const HEALTH: [&str; 2] = ["/livez", "/readyz"];

/// All paths, for programs (OpenAPI 3.1).
const OPENAPI: &str = include_str!("openapi.json");

/// Only what comes from here; nothing of it inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// How often a page is told what is new.
const LIVE: Duration = Duration::from_secs(2);

/// The longest that metrics wait for the database: without it they come without those of the whole cluster.
const SCRAPED: Duration = Duration::from_secs(2);

/// Pages that are told at the same time; the others are as true as when they were loaded.
const MOST_LIVE: usize = 16;

/// Whoever wants an account or an output to be tried waits so long for what comes of it.
const SHOWS: Duration = Duration::from_secs(10);

/// Whoever wants past messages told again waits so long for the end of that.
const REPLAYS: Duration = Duration::from_secs(40);

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(100);

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
        .route("/api/v1/openapi.json", read().to(description))
        .route("/api/v1/status", read().to(status))
        .route("/api/v1/cluster", read().to(cluster))
        .route("/api/v1/outputs", read().to(outputs))
        .route("/api/v1/outputs/{name}/retry", web::post().to(retry))
        .route("/api/v1/accounts", read().to(accounts))
        .route("/api/v1/accounts/{id}", read().to(account))
        .route("/api/v1/accounts/{id}/replay", web::post().to(replay))
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
    let admitted =
        request.app_data::<Monitor>().map_or(Err(Refusal::WrongHost), |shared| shared.admit(&request));
    let stranger = admitted != Ok(Admitted::Known);
    let mut response = match admitted {
        Ok(admitted) => {
            request.extensions_mut().insert(admitted);
            next.call(request).await?.map_into_left_body()
        }
        Err(refusal) => request.into_response(refused(refusal)).map_into_right_body(),
    };
    if stranger || !response.status().is_success() {
        // There are few places: nobody keeps one who has nothing to show, or was given nothing.
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Ok(response)
}

fn refused(refusal: Refusal) -> HttpResponse {
    let status = match refusal {
        Refusal::WrongHost => StatusCode::MISDIRECTED_REQUEST,
        Refusal::ReadOnly | Refusal::PasswordOnly | Refusal::Foreign => StatusCode::FORBIDDEN,
        Refusal::Unauthorized => StatusCode::UNAUTHORIZED,
        Refusal::TooMany => StatusCode::TOO_MANY_REQUESTS,
    };
    let mut answer = problem(status, &refusal.to_string());
    let headers = answer.headers_mut();
    match refusal {
        Refusal::Unauthorized => {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"idlewatch\""));
            // So that a browser asks its reader.
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"idlewatch\""));
        }
        Refusal::TooMany => headers.insert(RETRY_AFTER, HeaderValue::from_static("60")).for_each(drop),
        _ => {}
    }
    answer
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

/// `?state=auth_failed&q=part-of-an-id&sort=since&after=ID`
#[derive(Debug, Deserialize)]
struct Shown {
    #[serde(default)]
    sort: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    q: String,
    after: Option<String>,
}

impl Shown {
    fn wanted(&self) -> Wanted {
        let state = AccountState::ALL.into_iter().find(|state| state.as_str() == self.state);
        let order = AccountOrder::named(&self.sort).unwrap_or_default();
        Wanted { state, order, text: crate::text::line(self.q.trim(), 128) }
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
        order: wanted.order,
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

async fn description() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(OPENAPI)
}

async fn alive(monitor: Monitor) -> HttpResponse {
    if monitor.heartbeats.all_alive(Instant::now()) {
        HttpResponse::Ok().json(json!({ "alive": true }))
    } else {
        problem(StatusCode::SERVICE_UNAVAILABLE, "a thread of the monitor hangs")
    }
}

async fn ready(monitor: Monitor, request: HttpRequest) -> HttpResponse {
    let known = request.extensions().get() == Some(&Admitted::Known);
    match monitor.coordinator.send(GetStatus).await {
        Ok(status) if status.ready => HttpResponse::Ok().json(json!({ "ready": true })),
        Ok(_) if !known => HttpResponse::ServiceUnavailable().json(json!({ "ready": false })),
        Ok(status) => {
            HttpResponse::ServiceUnavailable().json(json!({ "ready": false, "because": status.not_ready }))
        }
        Err(_) => stopping(),
    }
}

async fn metrics(monitor: Monitor) -> HttpResponse {
    let members = match &monitor.registry {
        Some(registry) => timeout(SCRAPED, registry.look()).await.ok().and_then(Result::ok),
        None => None,
    };
    let members = members.map(|told| told.members);
    match monitor.coordinator.send(Scrape { members }).await {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text),
        Err(_) => stopping(),
    }
}

/// Those who share the accounts.
async fn cluster(monitor: Monitor) -> HttpResponse {
    let Some(registry) = &monitor.registry else {
        let message = "the journal is in a file, so this is the only monitor; see /api/v1/status";
        return problem(StatusCode::NOT_FOUND, message);
    };
    match registry.look().await {
        Ok(members) => HttpResponse::Ok().json(members),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
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
        Ok(status) => HttpResponse::Ok().json(OutputList { outputs: status.outputs }),
        Err(_) => stopping(),
    }
}

async fn retry(monitor: Monitor, name: web::Path<String>) -> HttpResponse {
    let output = match monitor.coordinator.send(FindOutput(name.clone())).await {
        Ok(Some(output)) => output,
        Ok(None) => {
            let name = crate::text::line(&name, 128);
            return problem(StatusCode::NOT_FOUND, &format!("there is no output \"{name}\""));
        }
        Err(_) => return stopping(),
    };
    info!(output:% = output.name; "another try was asked for");
    let settled = output.retry(SHOWS).await;
    let status = if settled { StatusCode::OK } else { StatusCode::ACCEPTED };
    let output = OutputReport::new(&output, Timestamp::now());
    HttpResponse::build(status).json(RetryReport { settled, output })
}

/// `?state=auth_failed&q=part-of-an-id&sort=since&limit=100&after=ID`
fn wanted_accounts(query: &Query) -> Result<AccountQuery, String> {
    let states = AccountState::ALL.map(AccountState::as_str).join(", ");
    let orders = AccountOrder::ALL.map(AccountOrder::as_str).join(", ");
    let state = |text: &str| AccountState::ALL.into_iter().find(|state| state.as_str() == text);
    let limit = query.read("limit", &format!("a number up to {MOST_ON_PAGE}"), |text| text.parse().ok())?;
    Ok(AccountQuery {
        state: query.read("state", &format!("one of {states}"), state)?,
        text: query.text("q").map(str::to_owned),
        after: query.text("after").map(AccountId::from),
        order: query.read("sort", &format!("one of {orders}"), AccountOrder::named)?.unwrap_or_default(),
        limit: limit.unwrap_or(PAGE).clamp(1, MOST_ON_PAGE),
    })
}

async fn accounts(monitor: Monitor, request: HttpRequest) -> HttpResponse {
    let query = match wanted_accounts(&Query::of(&request)) {
        Ok(query) => query,
        Err(wrong) => return problem(StatusCode::BAD_REQUEST, &wrong),
    };
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
        Ok(true) => became(&monitor, &id, wish).await,
        Ok(false) => no_such(&id),
        Err(_) => stopping(),
    }
}

/// What became of a wish, if that shows soon.
async fn became(monitor: &Shared, id: &str, wish: Wish) -> HttpResponse {
    let end = Instant::now() + SHOWS;
    loop {
        let account = match monitor.coordinator.send(GetAccount(id.into())).await {
            Ok(Some(account)) => account,
            Ok(None) => return no_such(id),
            Err(_) => return stopping(),
        };
        let settled = wish == Wish::Resume && account.is_settled();
        if settled || wish == Wish::Reconnect || Instant::now() >= end {
            let status = if settled { StatusCode::OK } else { StatusCode::ACCEPTED };
            return HttpResponse::build(status).json(WishReport::new(account, settled));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// `?since=24h` or `?from_uid=UID`, `&mailbox=GLOB&output=NAME`
fn wanted_past(account: AccountId, query: &Query) -> Result<Replay, String> {
    let moment = "an age like 24h, a day, or a moment like 2026-11-24T08:00:00Z";
    let since = query.read("since", moment, |text| text.parse::<Since>().ok()?.time())?;
    let uid = query.read("from_uid", "a UID", |text| text.parse::<NonZeroU32>().ok())?;
    let from = match (since, uid) {
        (Some(at), None) => ToldFrom::Time(at),
        (None, Some(uid)) => ToldFrom::Uid(uid.get()),
        _ => return Err("expected one of since and from_uid".to_owned()),
    };
    let [mailbox, output] = ["mailbox", "output"].map(|name| query.text(name).map(str::to_owned));
    Ok(Replay { account, mailbox, from, output })
}

async fn replay(monitor: Monitor, id: web::Path<String>, request: HttpRequest) -> HttpResponse {
    let account = AccountId::from(id.as_str());
    let wanted = match wanted_past(account.clone(), &Query::of(&request)) {
        Ok(wanted) => wanted,
        Err(wrong) => return problem(StatusCode::BAD_REQUEST, &wrong),
    };
    let asked = monitor.coordinator.send(wanted);
    match tokio::time::timeout(REPLAYS, asked).await {
        Ok(Ok(Ok(report))) => HttpResponse::Ok().json(report),
        Ok(Ok(Err(error))) => {
            let status = match error {
                ReplayError::NoAccount(_) => StatusCode::NOT_FOUND,
                ReplayError::NoMailbox(_) | ReplayError::NoOutput(_) | ReplayError::ManyMailboxes => {
                    StatusCode::BAD_REQUEST
                }
                ReplayError::Busy => StatusCode::CONFLICT,
                ReplayError::Stopping => return stopping(),
            };
            problem(status, &error.to_string())
        }
        Ok(Err(_)) => stopping(),
        // It goes on without us.
        Err(_) => {
            let report =
                ReplayReport { account, settled: false, complete: false, events: 0, problems: Vec::new() };
            HttpResponse::Accepted().json(report)
        }
    }
}

async fn reload(monitor: Monitor) -> HttpResponse {
    match monitor.coordinator.send(Reload).await {
        Ok(Ok(report)) => HttpResponse::Ok().json(report),
        Ok(Err(error)) => {
            let status = match error {
                ReloadError::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
                ReloadError::Busy | ReloadError::NoFile => StatusCode::CONFLICT,
                ReloadError::Stopping => return stopping(),
            };
            let problems = match &error {
                ReloadError::Invalid { lines, .. } => lines.iter().map(|(_, line)| line.as_str()).collect(),
                _ => Vec::new(),
            };
            HttpResponse::build(status).json(json!({ "error": error.to_string(), "problems": problems }))
        }
        Err(_) => stopping(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// What each of them answers is compared with its description by tests/it/http.rs.
    #[test]
    fn every_path_is_described_and_every_described_path_is_there() {
        let described: Value = serde_json::from_str(OPENAPI).unwrap();
        let described: BTreeSet<_> =
            described["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let (before_tests, _) = include_str!("routes.rs").split_once("#[cfg(test)]").unwrap();
        let routes = before_tests.split(".route(\"").skip(1);
        let routes: BTreeSet<_> = routes.filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(routes, described);
    }
}
