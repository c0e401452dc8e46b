// Questions to the admin API. The token is kept for this tab only, and goes into the Authorization header, never into an
// address. An error is an `Error` whose message is a sentence that can be shown as it is.

const base = new URL('../api/v1/', document.baseURI)
const patienceMs = 12_000
const key = 'jam-mqtt console token'

let routes = null

/** Tells the shell: `lost`, `answered`, `unauthorized`. */
export const signals = new EventTarget()
const signal = (name, detail) => signals.dispatchEvent(new CustomEvent(name, { detail }))

export const token = {
  get: () => sessionStorage.getItem(key),
  set: (text) => sessionStorage.setItem(key, text),
  forget: () => { sessionStorage.removeItem(key); routes = null }
}

export class ApiError extends Error {
  constructor (message, status, name) {
    super(message)
    this.status = status
    this.name = name ?? 'ApiError'
  }
}

/** A path of the API: parts that may hold anything, and a query without what is not set. */
export function path (parts, query = {}) {
  const url = new URL(parts.map(encodeURIComponent).join('/'), base)
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '') url.searchParams.set(name, value)
  }
  return url
}

async function send (url, options) {
  const silent = AbortSignal.timeout(patienceMs)
  const signalOf = options.signal ? AbortSignal.any([options.signal, silent]) : silent
  try {
    const response = await fetch(url, {
      ...options,
      signal: options.stream ? options.signal : signalOf,
      headers: { authorization: `Bearer ${token.get() ?? ''}`, ...options.headers },
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error'
    })
    signal('answered')
    return response
  } catch (error) {
    if (options.signal?.aborted) throw new ApiError('Not needed any more.', 0, 'AbortError')
    const why = silent.aborted ? `The server has not answered for ${patienceMs / 1000} seconds.` : 'The server cannot be reached.'
    signal('lost', why)
    throw new ApiError(why, 0)
  }
}

async function problem (response) {
  let detail = null
  try { detail = (await response.json()).detail } catch { /* not ours, perhaps a proxy's */ }
  if (response.status === 401) signal('unauthorized')
  const sentence = detail ?? `The answer was ${response.status} ${response.statusText}, without a reason.`
  return new ApiError(sentence.charAt(0).toUpperCase() + sentence.slice(1) + (/[.!?]$/.test(sentence) ? '' : '.'), response.status)
}

/** The JSON that a route answers with. */
export async function ask (method, url, { body, signal: abort } = {}) {
  const response = await send(url, {
    method,
    signal: abort,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: body === undefined ? {} : { 'content-type': 'application/json' }
  })
  if (!response.ok) throw await problem(response)
  if (response.status === 204) return null
  try {
    return await response.json()
  } catch {
    throw new ApiError('The answer is not JSON: is a proxy in between that answers by itself?', response.status)
  }
}

export const get = (parts, query, options) => ask('GET', path(parts, query), options)
export const put = (parts, body) => ask('PUT', path(parts), { body })
export const remove = (parts, query) => ask('DELETE', path(parts, query))

/** The text of `/metrics`. */
export async function metrics (abort) {
  const response = await send(new URL('../metrics', document.baseURI), { method: 'GET', signal: abort })
  if (!response.ok) throw await problem(response)
  return response.text()
}

/** An open answer, to be read as it comes. */
export async function open (parts, query, { signal: abort, headers }) {
  const response = await send(path(parts, query), { method: 'GET', signal: abort, headers, stream: true })
  if (!response.ok) throw await problem(response)
  return response.body
}

/** The description of the API, asked for once; also what a new token is tried with. */
export async function description ({ anew = false } = {}) {
  if (anew || !routes) routes = await get(['openapi.json'])
  return routes
}

/** Whether this server has a route: what it lacks, the console leaves out. */
export const offers = (route, method = 'get') => Boolean(routes?.paths?.[route]?.[method])
export const apiAddress = () => base.href
