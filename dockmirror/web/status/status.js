"use strict";
(function () {
  var stale = document.getElementById("stale");

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
      if (!fresh.hasAttribute(each.name)) { old.removeAttribute(each.name); }
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

  function show(text) {
    var fresh = new DOMParser().parseFromString(text, "text/html");
    ["header", "main"].forEach(function (name) {
      become(document.querySelector(name), fresh.querySelector(name));
    });
  }

  function read(response) {
    if (!response.ok) { throw new Error(response.status); }
    return response.text();
  }

  // While something is on its way each second, else now and then; not while nobody looks.
  function wait() {
    setTimeout(look, document.querySelector("#fetches progress") ? 1000 : 5000);
  }

  function look() {
    if (document.hidden) {
      document.addEventListener("visibilitychange", look, { once: true });
      return;
    }
    fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" }).then(read).then(show).then(
      function () { stale.hidden = true; },
      function () { stale.hidden = false; }
    ).then(wait);
  }

  wait();
})();
