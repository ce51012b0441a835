from django.contrib import admin
from django.urls import include, path

from orders import views

urlpatterns = [
    path("", views.shop, name="shop"),
    path("orders/", include("orders.urls")),
    path("admin/", admin.site.urls),
]
