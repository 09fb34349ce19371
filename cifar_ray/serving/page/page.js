"use strict";

/* The page of the service. Names of files and labels are anybody's text: they are only ever set as
   textContent. A card is an image's state; what the session keeps of it is small. */

const KEPT = "cifar-ray-history";
const KEY = "cifar-ray-key";
const MAX_KEPT = 30;
const THUMBNAIL_SIDE = 352;
const MAX_AT_ONCE = 2;
const MAX_TRIES = 6;
const BARS = 3;
const DOUBTFUL = 0.5;
const TINY_SIDE = 64;
const TITLES = {
  not_an_image: "This is not an image",
  empty: "This file is empty",
  unsupported: "This kind of image cannot be read",
  truncated: "This image is incomplete",
  too_large: "This image is too large",
  decode_failed: "This image is damaged",
  model_failed: "The model could not decide",
};

const $ = (id) => document.getElementById(id);
const waiting = [];
let atWork = 0;
let service = null;
let history = [];

/* ---- The service ---- */

class Refusal extends Error {
  constructor(title, message, again = false) {
    super(message);
    this.title = title;
    this.again = again;
  }
}

function headers(more = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, "X-API-Key": key } : more;
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch {
    throw new Refusal("The service cannot be reached", "Is it running? Then try again.", true);
  }
  if (answer.ok) return answer.json();
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401) askForKey();
  const title = { 401: "An API key is needed", 413: TITLES.too_large }[answer.status];
  const refusal = new Refusal(
    title ?? "The service did not answer",
    said.message ?? "Try again in a moment.",
    answer.status !== 413,
  );
  refusal.retryAfterS = answer.status === 429 ? Number(answer.headers.get("Retry-After") ?? 1) : 0;
  throw refusal;
}

async function predict(file, model, explain) {
  const query = new URLSearchParams({ top_k: String(BARS), explain: String(explain) });
  if (model) query.set("model", model);
  const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  const options = { method: "POST", body: file, headers: { "Content-Type": type } };
  for (let tries = 1; ; tries += 1) {
    try {
      const answer = await ask(`v1/predict?${query}`, options);
      return { ...answer.results[0], model: answer.model };
    } catch (refusal) {
      if (!refusal.retryAfterS || tries === MAX_TRIES) throw refusal;
      await new Promise((done) => setTimeout(done, refusal.retryAfterS * 1000));
    }
  }
}

async function describe() {
  try {
    service = await ask("v1/model");
  } catch (refusal) {
    if (refusal.title === "An API key is needed") return;
    show($("notice"), `${refusal.title}. ${refusal.message}`);
    return;
  }
  $("key-form").hidden = true;
  const names = Object.keys(service.models);
  $("model").replaceChildren(
    ...names.map((name) => new Option(name, name, name === service.default)),
  );
  $("model").value = service.default;
  $("models").hidden = names.length < 2;
  const megabytes = Math.floor(service.limits.image_bytes / 2 ** 20);
  $("limits").textContent = `JPEG, PNG, WebP, GIF, BMP or TIFF, up to ${megabytes} MB each`;
  tellModel();
}

function tellModel() {
  const model = service.models[$("model").value];
  const names = model.labels.slice(0, 10).join(", ");
  const more = model.labels.length > 10 ? ` and ${model.labels.length - 10} more` : "";
  const right = model.accuracy ? `, right for ${percent(model.accuracy)} of test images` : "";
  $("about").textContent =
    `The model knows ${names}${more}, and nothing else. (${model.network}${right})`;
}

function askForKey() {
  $("key-wrong").hidden = !sessionStorage.getItem(KEY);
  $("key-form").hidden = false;
  $("key").focus();
}

/* ---- Images that come in ---- */

function take(files) {
  show($("notice"), files.length ? "" : "There was no image in that.");
  for (const file of files) {
    const card = addCard({ name: file.name });
    showPreview(card, URL.createObjectURL(file));
    waiting.push({ file, card });
  }
  work();
}

async function work() {
  while (atWork < MAX_AT_ONCE && waiting.length) {
    const job = waiting.shift();
    atWork += 1;
    label(job).finally(() => {
      atWork -= 1;
      work();
    });
  }
}

async function label({ file, card }) {
  const model = $("model").value; // which may be another one when the evidence is asked for
  try {
    if (!file.size) throw new Refusal(TITLES.empty, "There is nothing in it.");
    if (service && file.size > service.limits.image_bytes) {
      const megabytes = Math.floor(service.limits.image_bytes / 2 ** 20);
      throw new Refusal(TITLES.too_large, `An image may have ${megabytes} MB.`);
    }
    const result = await predict(file, model, false);
    if (!card.isConnected) return; // cleared away meanwhile
    if (result.status === "ok") showAnswer(card, result, { file, model });
    else showRefusal(card, TITLES[result.status] ?? "No label", `${sentence(result.error)}.`);
    keep(card, file.name, result);
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    if (!card.isConnected) return;
    showRefusal(card, refusal.title, refusal.message);
    const again = card.querySelector(".again");
    again.hidden = !refusal.again;
    again.onclick = () => {
      showWaiting(card);
      waiting.push({ file, card });
      work();
    };
  }
}

/* ---- Cards ---- */

function addCard({ name }) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  card.querySelector("figcaption").textContent = name;
  card.querySelector("figcaption").title = name;
  $("cards").prepend(card);
  $("results").hidden = false;
  return card;
}

function showPreview(card, url) {
  const image = card.querySelector(".picture");
  image.onload = () => {
    image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= TINY_SIDE);
  };
  image.onerror = () => {
    image.hidden = true;
    card.querySelector(".no-preview").hidden = false;
  };
  image.src = url;
}

function showState(card, state) {
  card.dataset.state = state;
  for (const name of ["waiting", "answer", "refused"]) {
    card.querySelector(`.${name}`).hidden = name !== state;
  }
}

function showWaiting(card) {
  showState(card, "waiting");
}

function showRefusal(card, title, message) {
  card.querySelector(".fault-title").textContent = title;
  card.querySelector(".fault-text").textContent = message;
  showState(card, "refused");
  speak(`${title}. ${message}`);
}

function showAnswer(card, result, asked) {
  const best = result.top[0];
  card.querySelector(".label").textContent = best.label;
  card.querySelector(".sure").textContent = percent(best.score);
  const doubt = card.querySelector(".doubt");
  const unsure = best.score < DOUBTFUL ? "The model is not sure. " : "";
  const rough = result.confidence === null ? "This model’s percentages are not calibrated." : "";
  show(doubt, unsure + rough);
  card.querySelector(".bars").replaceChildren(...result.top.map(bar));
  const evidence = card.querySelector(".evidence");
  evidence.hidden = !asked;
  if (asked) evidence.onclick = () => toggleEvidence(card, evidence, asked);
  card.querySelector(".picture").alt = `Image labelled ${best.label}`;
  showState(card, "answer");
  speak(`${best.label}, ${percent(best.score)}`);
}

function bar({ label: name, score }) {
  const row = $("bar").content.firstElementChild.cloneNode(true);
  row.querySelector(".bar-label").textContent = name;
  row.querySelector(".bar-label").title = name;
  row.querySelector(".percent").textContent = percent(score);
  const fill = row.querySelector(".fill");
  requestAnimationFrame(() => {
    fill.style.width = `${Math.max(0.5, score * 100)}%`;
  });
  return row;
}

async function toggleEvidence(card, button, { file, model }) {
  const image = card.querySelector(".picture");
  const shown = button.getAttribute("aria-pressed") === "true";
  // Not `disabled`, which would take the focus away from who uses a keyboard.
  if (button.ariaBusy === "true") return;
  if (!card.evidence) {
    button.ariaBusy = "true";
    button.textContent = "Looking …";
    try {
      card.evidence = (await predict(file, model, true)).explanation;
      card.plain = image.src;
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      show($("notice"), `${refusal.title}. ${refusal.message}`);
    }
    button.ariaBusy = "false";
  }
  const show_ = !shown && Boolean(card.evidence);
  if (card.evidence) showPreview(card, show_ ? card.evidence : card.plain);
  button.setAttribute("aria-pressed", String(show_));
  button.textContent = show_ ? "Show the image" : "Show why";
  const name = card.querySelector(".label").textContent;
  image.alt = show_ ? `What spoke for ${name} glows` : `Image labelled ${name}`;
  if (show_) speak(`The parts that spoke for ${name} glow.`);
}

/* ---- What this tab remembers ---- */

function keep(card, name, result) {
  const entry = { name, result: { ...result, explanation: null }, picture: thumbnail(card) };
  history = [entry, ...history].slice(0, MAX_KEPT);
  for (;;) {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(history));
      return;
    } catch {
      if (!history.length) return;
      history.pop(); // the tab's storage is full
    }
  }
}

function thumbnail(card) {
  const image = card.querySelector(".picture");
  if (!image.complete || !image.naturalWidth) return null;
  const scale = Math.min(1, THUMBNAIL_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.8);
}

function recall() {
  try {
    history = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
  } catch {
    history = [];
  }
  for (const { name, result, picture } of [...history].reverse()) {
    const card = addCard({ name });
    showPreview(card, picture ?? "");
    if (result.status === "ok") showAnswer(card, result, null);
    else showRefusal(card, TITLES[result.status] ?? "No label", `${sentence(result.error)}.`);
  }
  $("spoken").textContent = "";
}

/* ---- Words ---- */

function percent(share) {
  const value = share * 100;
  if (value > 99 && value < 100) return "> 99 %";
  if (value > 0 && value < 1) return "< 1 %";
  return `${Math.round(value)} %`;
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "There is no label for it";
}

function speak(text) {
  $("spoken").textContent = text;
}

function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

/* ---- Doors ---- */

function filesOf(transfer) {
  return [...(transfer?.files ?? [])];
}

for (const [button, input] of [[$("choose"), $("files")], [$("photograph"), $("camera")]]) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
}
document.addEventListener("paste", (event) => {
  const files = filesOf(event.clipboardData);
  if (files.length) take(files);
});
// The whole page takes a drop, so that a near miss does not leave it.
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") take(filesOf(event.dataTransfer));
  });
}
$("model").addEventListener("change", tellModel);
$("clear").addEventListener("click", () => {
  history = [];
  sessionStorage.removeItem(KEPT);
  waiting.length = 0;
  $("cards").replaceChildren();
  $("results").hidden = true;
  $("choose").focus();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key").value.trim());
  $("key").value = "";
  describe();
});

recall();
describe();
