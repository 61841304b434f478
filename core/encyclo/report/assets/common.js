"use strict";
// Code that both pages use. Data is put into the page as text nodes and attributes only, never as markup.

function read(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function el(tag, attributes, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

// A drawing's namespace comes from a drawing that the page has.
function svg(tag, attributes, ...children) {
  const space = document.getElementById("shapes").namespaceURI;
  return dress(document.createElementNS(space, tag), attributes, children);
}

function percent(thousandths, digits) {
  return thousandths === null ? "not measured" : (thousandths / 10).toFixed(digits || 0) + "%";
}

function plain(text) {
  return text.normalize("NFKC").toLowerCase();
}
