// The page's test: drives a browser through its debugging pipe, and fails unless the tour shows what it promises.
//
// usage: node page.mjs BROWSER SCRATCH PUBLIC ADMIN
// The pipe is file descriptors 3 and 4 of the browser, JSON messages that end with a zero byte; so nothing is installed
// and no port is opened.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as rest } from "node:timers/promises";

const [binary, scratch, publicUrl, adminUrl] = process.argv.slice(2);
const GUARD = 60_000;

class Browser {
  constructor() {
    const flags = ["--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--remote-debugging-pipe", `--user-data-dir=${join(scratch, "profile")}`];
    // Chromium refuses its sandbox to root, as whom tests run in a container.
    if (process.getuid?.() === 0) flags.push("--no-sandbox");
    this.process = spawn(binary, flags, { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
    this.said = "";
    this.process.stderr.on("data", (chunk) => { this.said += chunk; });
    this.gone = new Promise((_, reject) => {
      this.process.on("error", reject);
      this.process.on("exit", (code) => reject(new Error(`the browser ended with ${code}:\n${this.said}`)));
    });
    this.gone.catch(() => {});
    this.waiting = new Map();
    this.events = [];
    this.last = 0;
    let text = "";
    this.process.stdio[4].setEncoding("utf8").on("data", (chunk) => {
      const messages = (text + chunk).split("\0");
      text = messages.pop();
      messages.forEach((message) => this.receive(JSON.parse(message)));
    });
  }

  receive(message) {
    if (message.id === undefined) return this.events.push(message);
    const { resolve, reject } = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (message.error) reject(new Error(message.error.message));
    else resolve(message.result);
  }

  send(method, params = {}, sessionId = undefined) {
    const id = ++this.last;
    const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return Promise.race([answer, this.gone]);
  }

  async page(width, height) {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId);
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await page.send(`${domain}.enable`);
    await page.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
    return page;
  }

  async close() {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.send("Browser.close").catch(() => {});
    await ended;
  }
}

class Page {
  constructor(browser, session) {
    this.browser = browser;
    this.session = session;
  }

  send(method, params) {
    return this.browser.send(method, params, this.session);
  }

  async evaluate(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }

  async until(expression) {
    for (const begun = Date.now(); Date.now() - begun < GUARD; await rest(50)) {
      const value = await this.evaluate(expression);
      if (value) return value;
    }
    throw new Error(`waited for ${expression}; the page shows\n${await this.evaluate("document.body.innerText")}`);
  }

  async screenshot(name) {
    const { data } = await this.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: true });
    const file = join(scratch, name);
    writeFileSync(file, Buffer.from(data, "base64"));
    console.log(`  ${file}`);
  }

  // What went wrong in scripts, and what could not be loaded.
  errors() {
    const ours = this.browser.events.filter((event) => event.sessionId === this.session);
    const thrown = ours.filter((event) => event.method === "Runtime.exceptionThrown")
      .map((event) => event.params.exceptionDetails.exception?.description ?? event.params.exceptionDetails.text);
    const logged = ours.filter((event) => event.method === "Log.entryAdded" && event.params.entry.level === "error")
      .map((event) => `${event.params.entry.url ?? ""} ${event.params.entry.text}`);
    const complained = ours.filter((event) => event.method === "Runtime.consoleAPICalled" && event.params.type === "error")
      .map((event) => JSON.stringify(event.params.args));
    return [...thrown, ...logged, ...complained];
  }
}

// What each try must have come to: its state, and what it says.
const promised = {
  "store-stay": ["done", /^page:[a-z]{100}$/],
  "store-leave": ["stopped", /^you left; stopped \d+\.\d ms later, .*; written: false\ncontext canceled: client disconnected/],
  search: ["done", /^10 results in .*, budget left .*\n.*golang/i],
  "search-late": ["stopped", /^504: context deadline exceeded: .*timeout=1µs in the query$/],
  "report-stay": ["done", /^\d+ entries, balance -?\d+\nin .*; last report: /],
  "report-leave": ["stopped", /^you left; the statement was stopped \d+\.\d ms later; statements running: 0$/],
  job: ["done", /^\/jobs\/\d+ goes on without you$/],
  "sign-in": ["done", /^ann is signed in, session [0-9a-f]{16}; scripts see no id$/],
  me: ["done", /^ann, signed in at \d{4}-.*Z, session [0-9a-f]{16}$/],
  sessions: ["done", /^ann, sessions: 1\n[0-9a-f]{16} since .*Z, this one$/],
  "sign-out": ["stopped", /^ended 1, which holds at once; \/me now: 403 no_session$/],
};

// A search that comes too late and a question without a session are answered with error statuses, which the browser notes.
const expected = [["timeout=1us", "504"], ["/me", "403"]];
const isExpected = (error) => expected.some((parts) => parts.every((part) => error.includes(part)));

async function tour(browser) {
  const page = await browser.page(1000, 1100);
  await page.send("Page.navigate", { url: `${publicUrl}/` });
  await page.until('document.readyState === "complete"');
  await page.screenshot("page.png");
  assert.deepEqual(await page.evaluate('[...document.querySelectorAll("output")].map((output) => output.textContent)'),
    Object.keys(promised).map(() => ""), "nothing runs by itself");

  await page.send("Page.navigate", { url: `${publicUrl}/#tour` });
  await page.until('document.body?.dataset.tour === "done"');
  await page.screenshot("tour.png");
  const shown = await page.evaluate(`Object.fromEntries([...document.querySelectorAll("button[data-try]")].map((button) => {
    const output = button.nextElementSibling;
    return [button.dataset.try, [output.className, output.textContent]];
  }))`);
  assert.deepEqual(Object.keys(shown).sort(), Object.keys(promised).sort(), "a try for each promise");
  for (const [name, [state, text]] of Object.entries(promised)) {
    assert.match(shown[name][1], text, name);
    assert.equal(shown[name][0], state, name);
  }
  assert.deepEqual(page.errors().filter((error) => !isExpected(error)), []);
  assert.equal(page.errors().length, expected.length, "errors are noticed at all");
  const session = (output) => shown[output][1].match(/[0-9a-f]{16}/)[0];
  assert.equal(session("me"), session("sign-in"), "the session that was begun");
  const { cookies } = await page.send("Network.getCookies", { urls: [publicUrl] });
  assert.deepEqual(cookies, [], "signing out took the cookie back");
}

async function form(browser) {
  const page = await browser.page(1000, 700);
  await page.send("Page.navigate", { url: `${publicUrl}/` });
  await page.until('document.readyState === "complete"');
  await page.evaluate('document.querySelector("form button").click()');
  await page.until('location.pathname === "/search" && document.querySelectorAll("ol li a").length === 10');
  await page.screenshot("results.png");
  await page.evaluate('document.querySelector("ol li a").click()');
  await page.until('location.pathname.startsWith("/a/") && document.querySelector("h1")?.textContent');
  await page.screenshot("passage.png");
  assert.deepEqual(page.errors(), []);
}

async function contexts(browser) {
  const page = await browser.page(1200, 800);
  await page.send("Page.navigate", { url: `${publicUrl}/` });
  await page.until('document.readyState === "complete"');
  await page.evaluate('document.querySelector("a[href$=\'/debug/contexts\']").click()');
  await page.until(`location.href === "${adminUrl}/debug/contexts" && document.querySelector("pre")`);
  const text = await page.evaluate('document.querySelector("pre").textContent');
  assert.match(text, /^\d+ live\n/);
  assert.match(text, /\n  connection \d+ .*\n    request \d+ .*\n      (admin request \d+ .* left|event stream \d+ )/,
    "the tree, with this request below its connection");
  assert.match(text, /\nlast ends, newest first/);
  assert.match(text, /search timeout \d+ after .*: context deadline exceeded/, "who ended, and why");
  assert.match(text, /client disconnected/);

  // What happens is shown on the page as it is, and not on another one that takes its place.
  await page.evaluate("window.before = true");
  await page.until('document.getElementById("state").textContent === "Following."');
  const live = (id) => `document.querySelector("pre").textContent.split("last ends")[0].includes("request ${id} ")`;
  const leave = new AbortController();
  const left = fetch(`${publicUrl}/store?key=followed&ms=60000`, { signal: leave.signal });
  const listed = await until(async () => {
    const { live } = await (await fetch(`${adminUrl}/debug/contexts.json`)).json();
    return live.find((row) => row.name === "request" && row.budget_left_ms > 0)?.id;
  });
  await page.until(live(listed));
  await page.screenshot("contexts.png");
  leave.abort();
  await assert.rejects(left, { name: "AbortError" });
  await page.until(`!(${live(listed)})`);
  assert.equal(await page.evaluate("window.before"), true, "the page has not been loaded anew");

  // It shows what the text has: the same contexts, in the same tree, but for the requests that ask.
  const lines = (text) => text.split("last ends")[0].split("\n").slice(1)
    .map((line) => line.match(/^ *[^ ]+(?: [^ ]+)* \d+(?= {2}age)/)?.[0]).filter((line) => line);
  const asked = await (await fetch(`${adminUrl}/debug/contexts.txt`)).text();
  const followed = new Set(lines(await page.evaluate('document.querySelector("pre").textContent')));
  const missing = lines(asked).filter((line) => !followed.has(line) && !/connection|request/.test(line));
  assert.deepEqual(missing, []);
  assert.ok(followed.size > 5, [...followed].join("\n"));
  assert.deepEqual(page.errors(), []);
}

// Without scripts the page is loaded anew.
async function contextsWithoutScripts(browser) {
  const page = await browser.page(1200, 800);
  await page.send("Emulation.setScriptExecutionDisabled", { value: true });
  await page.send("Page.navigate", { url: `${adminUrl}/debug/contexts` });
  await page.until('document.querySelector("pre")?.textContent.includes("live")');
  assert.equal(await page.evaluate('document.getElementById("state").textContent'), "", "no script runs");
  await page.evaluate("window.before = true");
  await page.until('window.before === undefined && document.querySelector("pre")');
  assert.deepEqual(page.errors(), []);
}

// Asks until there is an answer.
async function until(ask) {
  for (const begun = Date.now(); Date.now() - begun < GUARD; await rest(50)) {
    const answer = await ask();
    if (answer) return answer;
  }
  throw new Error(`waited for ${ask}`);
}

const browser = new Browser();
try {
  for (const look of [tour, form, contexts, contextsWithoutScripts]) {
    await look(browser);
    console.log(`ok: ${look.name}`);
  }
} finally {
  await browser.close();
}
