(function () {
  // The tab of the client that the address names, and the tabs around it.
  function choose() {
    var part = document.getElementById(location.hash.slice(1));
    var panel = part ? part.closest(".panel") : null;
    while (panel) {
      document.getElementById(panel.dataset.tab).checked = true;
      panel = panel.parentElement.closest(".panel");
    }
    if (part) { part.scrollIntoView(); }
  }

  var list = document.getElementById("pull-list");
  var parts = { pulls: list, test: document.getElementById("test-result") };
  var shown = {};
  var source = null;
  var later = 0;

  function show(event) {
    var received = JSON.parse(event.data);
    Object.keys(parts).forEach(function (name) {
      if (received[name] === shown[name]) { return; }
      shown[name] = parts[name].innerHTML = received[name];
    });
  }

  // A browser has few connections for a host, so a page that nobody sees holds none.
  function listen() {
    if (source) { source.close(); }
    source = null;
    if (document.hidden) { return; }
    source = new EventSource(list.dataset.events);
    source.onmessage = show;
    source.onerror = retry;
  }

  // A browser connects again after a break, but not after an error such as a proxy's while the mirror restarts.
  function retry() {
    if (source.readyState !== EventSource.CLOSED) { return; }
    clearTimeout(later);
    later = setTimeout(listen, 3000);
  }

  addEventListener("hashchange", choose);
  document.addEventListener("visibilitychange", listen);
  choose();
  listen();
}());
