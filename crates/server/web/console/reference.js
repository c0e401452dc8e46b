// The admin API as its own description has it, each route with a command to copy.

import { apiAddress, description } from './api.js'
import { copyButton } from './dialog.js'
import { h, load, table, tag } from './dom.js'

const methods = ['get', 'put', 'post', 'delete']

/** Text with `code`, **bold** and paragraphs, as the descriptions use them. */
export function prose (text) {
  return (text ?? '').trim().split(/\n\s*\n/).filter(Boolean).map((paragraph) => h('p', {},
    paragraph.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
      if (part.startsWith('`')) return h('code', {}, part.slice(1, -1))
      return part.startsWith('**') ? h('b', {}, part.slice(2, -2)) : part
    })))
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`

export function curl (method, path, operation, address) {
  const url = address.replace(/\/$/, '') + path.replace(/\{(\w+)\}/g, (_, name) => {
    const parameter = (operation.parameters ?? []).find((it) => it.name === name)
    return encodeURIComponent(parameter?.example ?? parameter?.schema?.example ?? name.toUpperCase())
  })
  const parts = ['curl', '-sS', '-H "Authorization: Bearer $TOKEN"']
  if (method !== 'get') parts.push(`-X ${method.toUpperCase()}`)
  if (operation.requestBody) parts.push("-H 'Content-Type: application/json'", "-d '{}'")
  if (path.endsWith('/events') && !path.includes('{')) parts.push('-N')
  return [...parts, quoted(url)].join(' ')
}

/** What a schema is, in a word or two. */
function kindOf (schema = {}) {
  if (schema.$ref) return schema.$ref.split('/').at(-1)
  if (schema.allOf) return kindOf(schema.allOf[0])
  const type = [schema.type].flat().filter((it) => it && it !== 'null').join(' or ')
  const values = schema.enum ? `: ${schema.enum.join(', ')}` : ''
  const range = schema.minimum !== undefined && schema.maximum !== undefined ? ` ${schema.minimum} to ${schema.maximum}` : ''
  if (schema.oneOf ?? schema.anyOf) return (schema.oneOf ?? schema.anyOf).filter((it) => it.type !== 'null').map(kindOf).join(' or ')
  return type === 'array' ? `list of ${kindOf(schema.items)}` : type + values + range
}

function fieldsOf (schema, spec, depth = 0) {
  if (!schema || depth > 4) return []
  if (schema.$ref) return fieldsOf(spec.components?.schemas?.[schema.$ref.split('/').at(-1)], spec, depth + 1)
  if (schema.allOf) return schema.allOf.flatMap((part) => fieldsOf(part, spec, depth + 1))
  const some = schema.oneOf ?? schema.anyOf
  if (some) return some.flatMap((part) => fieldsOf(part, spec, depth + 1))
  return Object.entries(schema.properties ?? {}).flatMap(([name, property]) => {
    const inner = property.type === 'array' ? fieldsOf(property.items, spec, depth + 1).map(([field, ...more]) => [`${name}[].${field}`, ...more]) : []
    return [[name, kindOf(property), property.description], ...inner]
  })
}

function operation (method, path, it, spec) {
  const said = h('span', { role: 'status', class: 'muted' })
  const command = curl(method, path, it, apiAddress())
  const good = Object.entries(it.responses ?? {}).find(([status]) => status.startsWith('2'))
  const fields = fieldsOf(Object.values(good?.[1].content ?? {})[0]?.schema, spec)
  const asked = [
    ...(it.parameters ?? []).map((parameter) => [h('code', {}, parameter.name), parameter.in, kindOf(parameter.schema), prose(parameter.description)]),
    ...fieldsOf(Object.values(it.requestBody?.content ?? {})[0]?.schema, spec).map(([name, kind, text]) => [h('code', {}, name), 'body', kind, prose(text)])
  ]
  return h('details', { class: 'operation' },
    h('summary', {}, tag(method.toUpperCase(), `method ${method}`), ' ', h('code', {}, path), ' ', h('span', { class: 'muted' }, it.summary ?? '')),
    h('div', { class: 'inside' },
      prose(it.description),
      asked.length > 0 && table(`What ${method.toUpperCase()} ${path} takes`, [['Name', ''], ['In', ''], ['Kind', ''], ['What it is', 'wide']], asked),
      fields.length > 0 && table(`What ${method.toUpperCase()} ${path} answers`, [['Answer', ''], ['Kind', ''], ['What it is', 'wide']], fields.map(([name, kind, text]) => [h('code', {}, name), kind, prose(text)])),
      table(`Statuses of ${method.toUpperCase()} ${path}`, [['Status', ''], ['When', 'wide']], Object.entries(it.responses ?? {}).map(([status, response]) => [status, prose(response.description)])),
      h('p', {}, h('code', { class: 'command', tabindex: '0' }, command)),
      h('p', { class: 'buttons start' }, copyButton(() => command, said, 'Copy as curl'), said)))
}

export function reference (place) {
  load(place, description, (spec) => {
    const groups = new Map()
    for (const [path, item] of Object.entries(spec.paths)) {
      for (const method of methods.filter((it) => item[it])) {
        const group = item[method].tags?.[0] ?? 'others'
        groups.set(group, [...(groups.get(group) ?? []), operation(method, path, item[method], spec)])
      }
    }
    return [
      h('div', { class: 'prose' }, prose(spec.info.description)),
      h('p', { class: 'muted' }, 'The commands take the token from the environment variable TOKEN.'),
      [...groups].map(([group, operations]) => h('section', { class: 'card' }, h('h2', {}, group.charAt(0).toUpperCase() + group.slice(1)), operations))
    ]
  })
}
