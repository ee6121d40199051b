"use strict";
(function () {
  var stale = document.getElementById("stale");
  var source = null;
  var watch = 0;

  // What is there becomes what has come, and is not replaced by it: what is selected or focused stays so.
  function become(old, fresh) {
    if (old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
      old.replaceWith(document.importNode(fresh, true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) { old.data = fresh.data; }
      return;
    }
    Array.from(old.attributes).forEach(function (each) {
      if (each.name !== "open") { if (!fresh.hasAttribute(each.name)) { old.removeAttribute(each.name); } }
    });
    Array.from(fresh.attributes).forEach(function (each) {
      if (old.getAttribute(each.name) !== each.value) { old.setAttribute(each.name, each.value); }
    });
    var before = Array.from(old.childNodes);
    var after = Array.from(fresh.childNodes);
    after.forEach(function (node, place) {
      if (place in before) { become(before[place], node); } else { old.append(document.importNode(node, true)); }
    });
    before.slice(after.length).forEach(function (node) { node.remove(); });
  }

  // An event has the parts of the page that have changed, by their selectors; new settings may add a part.
  function show(event) {
    var parts = JSON.parse(event.data);
    Object.keys(parts).forEach(function (selector) {
      var fresh = new DOMParser().parseFromString(parts[selector], "text/html");
      var part = document.querySelector(selector);
      if (part) { become(part, fresh.body.firstElementChild); }
    });
    stale.hidden = true;
    expect();
  }

  // An event comes every few seconds, an empty one if nothing has changed.
  function expect() {
    clearTimeout(watch);
    watch = setTimeout(lose, 12000);
  }

  function lose() {
    stale.hidden = false;
    follow();
  }

  // Nothing is sent while nobody looks.
  function follow() {
    if (source) { source.close(); }
    source = null;
    clearTimeout(watch);
    if (document.hidden) { return; }
    source = new EventSource("events" + location.search);
    source.onmessage = show;
    source.onerror = function () { stale.hidden = false; };
    expect();
  }

  // The values of a bar, which it has as its title, are shown at once below the chart.
  document.addEventListener("pointerover", function (event) {
    var bar = event.target.closest("g");
    if (bar) { bar.closest("figure").querySelector("output").textContent = bar.querySelector("title").textContent; }
  });
  document.addEventListener("visibilitychange", follow);
  follow();
})();
