"use strict";
document.querySelectorAll("button.copy").forEach(function (button) {
  var code = button.closest("figure").querySelector("code");
  var label = button.textContent;

  // Where there is no TLS, browsers give a page no clipboard: what is selected can be copied all the same.
  function copy() {
    if (navigator.clipboard) {
      return navigator.clipboard.writeText(code.textContent + "\n");
    }
    getSelection().selectAllChildren(code);
    return document.execCommand("copy") ? Promise.resolve() : Promise.reject();
  }

  button.addEventListener("click", function () {
    copy().then(function () {
      button.textContent = button.dataset.copied;
      setTimeout(function () { button.textContent = label; }, 2000);
    }, function () {
      getSelection().selectAllChildren(code);
    });
  });
  button.hidden = false;
});
