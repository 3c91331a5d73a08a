// Loads the part of the page that can have changed when the server says so. Without this
// script the pages work, and show the state of the time they were made.
(function () {
  "use strict";
  var region = document.getElementById("live");
  var stream = document.getElementById("stream");
  if (!region || !stream || !region.dataset.part || !window.EventSource) return;

  var least = 500; // milliseconds between two loads
  var pollEvery = 15000;
  var source = null, timer = null, poll = null, seen = "", shown = "", loaded = 0, loading = false, again = false;

  function say(text) { if (stream.textContent !== text) stream.textContent = text; }

  // count shows how many unknown devices there are, in the navigation.
  function count(n) {
    var e = document.getElementById("unknown-count");
    if (!e || n === null || e.textContent === n) return;
    e.textContent = n;
    e.hidden = n === "0";
  }

  function selecting() {
    var s = window.getSelection();
    return s && !s.isCollapsed && region.contains(s.anchorNode);
  }

  function swap(text) {
    var open = Array.from(region.querySelectorAll("details[open][id]"), function (d) { return d.id; });
    var active = document.activeElement;
    var within = active && region.contains(active);
    if (text === shown) return;
    if (within && /^(INPUT|TEXTAREA|SELECT)$/.test(active.tagName)) return;
    var focus = within ? path(active) : null;
    var scrolled = Array.from(region.querySelectorAll(".scroll"), function (s) { return [s.scrollLeft, s.scrollTop]; });
    var part = new DOMParser().parseFromString(text, "text/html");
    shown = text;
    region.replaceChildren.apply(region, Array.from(part.body.childNodes));
    open.forEach(function (id) { var d = document.getElementById(id); if (d) d.open = true; });
    Array.from(region.querySelectorAll(".scroll")).forEach(function (s, i) {
      if (scrolled[i]) { s.scrollLeft = scrolled[i][0]; s.scrollTop = scrolled[i][1]; }
    });
    if (focus) { var e = find(focus); if (e) e.focus({ preventScroll: true }); }
  }

  // path names an element by its link, or by its place among those of its kind.
  function path(e) {
    if (e.tagName === "A") return { link: e.getAttribute("href") };
    return { tag: e.tagName, at: Array.from(region.querySelectorAll(e.tagName)).indexOf(e) };
  }

  function find(p) {
    if (p.link) return Array.from(region.querySelectorAll("a")).find(function (a) { return a.getAttribute("href") === p.link; });
    return region.querySelectorAll(p.tag)[p.at];
  }

  function load() {
    timer = null;
    if (loading) { again = true; return; }
    if (selecting()) { schedule(); return; }
    loading = true;
    // By origin: a browser refuses to fetch where the page's own URL has a user, https://USER@NAME/.
    fetch(location.origin + region.dataset.part, { headers: { "X-Part": "live" }, credentials: "same-origin", redirect: "error" }).then(function (r) {
      if (r.status === 401 || r.status === 403) { stop(); throw new Error("logged out"); }
      if (!r.ok) throw new Error(r.status);
      count(r.headers.get("X-Unknown"));
      return r.text();
    }).then(function (text) {
      swap(text);
      say("Live: follows the station.");
    }).catch(function () { say(stream.dataset.off); }).finally(function () {
      loaded = Date.now();
      loading = false;
      if (again) { again = false; schedule(); }
    });
  }

  function schedule() {
    if (timer === null) timer = setTimeout(load, Math.max(0, loaded + least - Date.now()));
  }

  function start() {
    if (source) return;
    source = new EventSource(location.origin + "/live");
    source.onmessage = function (e) {
      if (poll) { clearInterval(poll); poll = null; }
      say("Live: follows the station.");
      if (e.data !== seen) { seen = e.data; schedule(); }
    };
    source.onerror = function () {
      say(stream.dataset.off);
      // The server has too many streams, or the session has ended.
      if (source && source.readyState === EventSource.CLOSED && !poll) poll = setInterval(schedule, pollEvery);
    };
  }

  function stop() {
    if (source) { source.close(); source = null; }
    if (poll) { clearInterval(poll); poll = null; }
  }

  // A browser opens few connections to a server, so a page that is not shown has none.
  document.addEventListener("visibilitychange", function () { document.hidden ? stop() : start(); });
  window.addEventListener("pagehide", stop);
  window.addEventListener("pageshow", function (e) { if (e.persisted) { start(); schedule(); } });
  if (!document.hidden) start();
})();
