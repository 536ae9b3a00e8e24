// Shows openapi.json: every route with its parameters, an example request for the shell, its answers and their shapes.
"use strict";

function make(tag, text, ...children) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

function shapeOf(schema, all, depth = 0) {
  if (!schema) return "any";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return depth > 3 ? name : shapeOf(all[name], all, depth + 1);
  }
  const either = schema.anyOf || schema.oneOf;
  if (either) return either.map((one) => shapeOf(one, all, depth)).filter((one) => one !== "null").join(" | ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `[${shapeOf(schema.items, all, depth)}, …]`;
  if (schema.properties) {
    const pad = "  ".repeat(depth + 1);
    const rows = Object.entries(schema.properties).map(([name, one]) => {
      const said = one.description ? `   // ${one.description}` : "";
      return `${pad}${name}: ${shapeOf(one, all, depth + 1)},${said}`;
    });
    return `{\n${rows.join("\n")}\n${"  ".repeat(depth)}}`;
  }
  return schema.type || "any";
}

function example(method, path, route) {
  const address = location.origin + path;
  const content = (route.requestBody && route.requestBody.content) || {};
  const lines = [];
  const json = content["application/json"];
  for (const { value } of Object.values((json && json.examples) || {})) {
    lines.push(`curl -X ${method} ${address} -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(value)}'`);
  }
  const form = content["multipart/form-data"];
  if (form) {
    const more = json && path === "/v1/search" ? ` -F 'request={"k": 5}'` : "";
    lines.push(`curl -X ${method} ${address} -F image=@picture.jpg${more}`);
  }
  if (!lines.length) lines.push(`curl${method === "GET" ? "" : ` -X ${method}`} '${address}'`);
  return lines.join("\n\n");
}

function show(method, path, route, all) {
  const inside = make("div");
  if (route.description) inside.append(make("p", route.description));
  if (route.parameters) {
    const table = make("table");
    for (const one of route.parameters) {
      table.append(make("tr", "", make("td", "", make("code", one.name)), make("td", `in ${one.in}`),
        make("td", shapeOf(one.schema, all)), make("td", one.description || one.schema.description || "")));
    }
    inside.append(table);
  }
  inside.append(make("h4", "Example"), make("pre", example(method, path, route)));
  const json = route.requestBody && route.requestBody.content["application/json"];
  if (json) inside.append(make("h4", "Request"), make("pre", shapeOf(json.schema, all)));
  inside.append(make("h4", "Answers"));
  for (const [status, one] of Object.entries(route.responses)) {
    const answer = one.content && one.content["application/json"];
    inside.append(make("p", `${status}  ${one.description || ""}`));
    if (answer && status[0] === "2") inside.append(make("pre", shapeOf(answer.schema, all)));
  }
  const name = make("span", path);
  name.className = "path";
  const verb = make("span", method);
  verb.className = "method";
  return make("details", "", make("summary", "", verb, name, route.summary || ""), inside);
}

fetch("../openapi.json").then((answer) => answer.json()).then((api) => {
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const tag = (route.tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(show(method.toUpperCase(), path, route, api.components.schemas));
    }
  }
  const place = document.getElementById("routes");
  place.textContent = "";
  for (const [tag, routes] of groups) place.append(make("h2", tag), ...routes);
}).catch((error) => { document.getElementById("routes").textContent = `The API cannot be read: ${error}`; });
