"use strict";

// The page of one server: what it serves, a box to ask it, and its figures. Everything comes from the server itself.

const $ = (id) => document.getElementById(id);
const SHOWN_LABELS = 8;
const BETWEEN_FIGURES_MS = 2000;

let key = "";
let model = null;
let asking = null;
let before = null;
const conversation = [];

function headers(more = {}) {
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function failed(response) {
  const told = await response.json().catch(() => null);
  return new Error(told?.error?.message ?? `the server answers ${response.status}`);
}

async function begin() {
  const response = await fetch("card", { headers: headers() });
  $("key").hidden = response.status !== 401;
  if (!response.ok) {
    if (key) $("problem").textContent = (await failed(response)).message;
    return;
  }
  model = await response.json();
  document.title = $("name").textContent = model.name;
  $("told").textContent = `version ${model.version}, ${model.task}, ${model.engine}`;
  $("card-text").textContent = model.card;
  $("card").hidden = !model.card;
  $("ask").hidden = false;
  if (model.labels.length) {
    $("box-label").textContent = "Text";
    $("send").textContent = "Classify";
  }
  $("text").focus();
  watch();
}

function line(who) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const body = document.createElement(who === "labels" ? "div" : "span");
  name.className = "who";
  name.textContent = who === "labels" ? "labels" : who;
  body.className = who === "labels" ? "labels" : "";
  item.append(name, body);
  $("said").append(item);
  return body;
}

async function classify(text) {
  const body = JSON.stringify({ model: model.name, input: text });
  const response = await fetch("v1/classify", { method: "POST", body, headers: headers(), signal: asking.signal });
  if (!response.ok) throw await failed(response);
  const [found] = (await response.json()).data;
  const shown = line("labels");
  for (const [label, share] of Object.entries(found.probabilities).slice(0, SHOWN_LABELS)) {
    const [name, meter, number] = ["span", "meter", "span"].map((kind) => document.createElement(kind));
    name.textContent = label;
    meter.value = share;
    number.textContent = share.toFixed(3);
    shown.append(name, meter, number);
  }
}

async function chat(text) {
  conversation.push({ role: "user", content: text });
  const shown = line(model.name);
  // A model that marks reads each message by itself.
  const messages = model.conversation ? conversation : conversation.slice(-1);
  const body = JSON.stringify({ model: model.name, messages, stream: true });
  try {
    const response = await fetch("v1/chat/completions", { method: "POST", body, headers: headers(), signal: asking.signal });
    if (!response.ok) throw await failed(response);
    for await (const event of events(response.body)) {
      if (event.error) throw new Error(event.error.message);
      shown.textContent += event.choices[0]?.delta?.content ?? "";
    }
  } finally {
    // What was not answered is not part of what is asked next.
    if (shown.textContent) conversation.push({ role: "assistant", content: shown.textContent });
    else conversation.pop();
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) if (part !== "data: [DONE]") yield JSON.parse(part.slice("data: ".length));
  }
}

async function ask(event) {
  event.preventDefault();
  const text = $("text").value;
  asking = new AbortController();
  $("send").disabled = true;
  $("stop").hidden = false;
  $("problem").textContent = "";
  line("you").textContent = text;
  $("text").value = "";
  try {
    await (model.labels.length ? classify(text) : chat(text));
  } catch (error) {
    if (error.name !== "AbortError") $("problem").textContent = error.message;
  }
  $("send").disabled = false;
  $("stop").hidden = true;
  $("text").focus();
}

function read(text) {
  const found = { running: 0, waiting: 0, answers: 0, written: 0 };
  for (const one of text.split("\n")) {
    const value = Number(one.split(" ").pop());
    if (one.startsWith("slmops_running ")) found.running = value;
    if (one.startsWith("slmops_queue_depth ")) found.waiting = value;
    if (one.startsWith("gen_ai_server_request_duration_seconds_count")) found.answers += value;
    if (one.startsWith("gen_ai_client_token_usage_sum") && one.includes('"output"')) found.written += value;
  }
  return found;
}

async function watch() {
  const response = await fetch("metrics", { headers: headers() }).catch(() => null);
  if (response?.ok) {
    const now = { ...read(await response.text()), at: performance.now() };
    now.rate = before ? Math.round(((now.written - before.written) / (now.at - before.at)) * 1000) : 0;
    before = now;
    for (const place of document.querySelectorAll("[data-figure]")) place.textContent = now[place.dataset.figure];
  }
  setTimeout(watch, BETWEEN_FIGURES_MS);
}

$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key-text").value;
  begin();
});
$("box").addEventListener("submit", ask);
$("stop").addEventListener("click", () => asking?.abort());
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !$("send").disabled) {
    event.preventDefault();
    $("box").requestSubmit();
  }
});
begin();
