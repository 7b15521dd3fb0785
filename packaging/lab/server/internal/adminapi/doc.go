// Package adminapi serves the administration of the development server: the API
// that package admin describes, and a page that shows sensors and events.
package adminapi
