// One function for each thing to try. Leaving is what a browser does when a tab closes: the request is aborted.
"use strict";

const rest = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const json = async (path, options) => (await fetch(path, options)).json();

async function leaving(path, after, options) {
  const leave = new AbortController();
  setTimeout(() => leave.abort(), after);
  try {
    const answer = await fetch(path, { ...options, signal: leave.signal });
    return `answered before you left: ${(await answer.text()).trim()}`;
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    return "you left";
  }
}

// Asks until the condition holds; the last answer either way.
async function until(ask, holds) {
  for (let tries = 0; tries < 200; tries += 1) {
    const answer = await ask();
    if (holds(answer)) return answer;
    await rest(25);
  }
  throw new Error("it did not come about within five seconds");
}

const refused = (say, answer) => say(`${answer.Status}: ${answer.Result.message}`, "stopped");

const tries = {
  async "store-stay"(say) {
    say((await (await fetch("/store?key=page&ms=1000")).text()).trim(), "done");
  },
  async "store-leave"(say) {
    say(await leaving("/store?key=left&ms=5000", 500));
    const last = await until(() => json("/store/last"), (last) => last.key === "left" && last.state !== "running");
    const stopped = `stopped ${last.stopped_after_ms?.toFixed(1)} ms later, pieces: ${last.pieces}; written: ${last.written}`;
    say(`you left; ${last.state === "stopped" ? stopped : last.state}\n${last.why ?? ""}`, "stopped");
  },
  async search(say) {
    const found = await json("/search?q=golang&timeout=1s");
    const hops = [[found.budget, "here"], [found.budget_back_end, "at the back end"], [found.budget_index, "in its index"]];
    const told = hops.filter(([budget]) => budget).map((hop) => hop.join(" ")).join(", ");
    say(`${found.count} results in ${found.elapsed}; budget ${told}, budget left ${found.budget_left}\n${found.results.map((r) => r.title).join("\n")}`, "done");
  },
  async "search-late"(say) {
    const answer = await json("/search?q=golang&timeout=1us");
    say(`${answer.Status}: ${answer.Result.message}`, "stopped");
  },
  async "report-stay"(say) {
    const answer = await json("/report?ms=500");
    say(`${answer.report}\nin ${answer.elapsed}; last report: ${answer.last_report ?? "none in the cache"}`, "done");
  },
  async "report-leave"(say) {
    const before = (await json("/report/last")).interrupted;
    say(await leaving("/report?ms=10000", 500));
    const last = await until(() => json("/report/last"), (last) => last.interrupted > before && last.running === 0);
    say(`you left; the statement was stopped ${last.stopped_after_ms?.toFixed(1)} ms later; statements running: ${last.running}`, "stopped");
  },
  async job(say) {
    const { location } = (await json("/jobs", { method: "POST" })).Result;
    const tell = (job) => say(`${location}: ${job.state}, ${job.passages} passages, started by ${job.started_by}`);
    const look = async () => { const job = await json(location); tell(job); return job; };
    await until(look, (job) => job.passages > 20);
    say(`${location} goes on without you`, "done");
  },
  async "sign-in"(say) {
    const token = await fetch("/token", { method: "POST", body: new URLSearchParams({ user: "ann" }) });
    if (!token.ok) return refused(say, await token.json());
    const authorization = `Bearer ${(await token.text()).trim()}`;
    const made = await json("/sessions?cookie=1", { method: "POST", headers: { authorization } });
    if (made.Status !== 201) return refused(say, made);
    const { user, session, id } = made.Result;
    say(`${user} is signed in, session ${session}; scripts see ${id ?? "no id"}`, "done");
  },
  async me(say) {
    const me = await json("/me");
    if (me.Status) return refused(say, me);
    say(`${me.user}, signed in at ${me.login_time}, session ${me.session}`, "done");
  },
  async sessions(say) {
    const all = await json("/sessions");
    if (all.Status) return refused(say, all);
    const lines = all.sessions.map((one) => `${one.session} since ${one.login_time}${one.current ? ", this one" : ""}`);
    say(`${all.user}, sessions: ${lines.length}\n${lines.join("\n")}`, "done");
  },
  async "sign-out"(say) {
    const end = await json("/sessions/current", { method: "DELETE" });
    if (end.Status) return refused(say, end);
    const after = await json("/me");
    say(`ended ${end.ended}, which holds ${end.holds}; /me now: ${after.Status} ${after.Code}`, "stopped");
  },
};

async function run(button) {
  const output = button.nextElementSibling;
  const say = (text, state) => {
    output.textContent = text;
    output.className = state ?? "";
  };
  button.disabled = true;
  say("…", "running");
  try {
    await tries[button.dataset.try](say);
  } catch (error) {
    say(String(error), "failed");
  } finally {
    button.disabled = false;
  }
}

async function tour() {
  const start = document.getElementById("tour");
  start.disabled = true;
  for (const button of document.querySelectorAll("button[data-try]")) {
    button.scrollIntoView({ behavior: "smooth", block: "center" });
    await run(button);
    await rest(400);
  }
  start.disabled = false;
  document.body.dataset.tour = "done";
}

document.querySelectorAll("button[data-try]").forEach((button) => button.addEventListener("click", () => run(button)));
document.getElementById("tour").addEventListener("click", tour);
const tourIfAsked = () => { if (location.hash === "#tour") tour(); };
window.addEventListener("hashchange", tourIfAsked);
tourIfAsked();
