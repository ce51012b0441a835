from django.urls import path

from . import views

urlpatterns = [
    path("", views.orders, name="orders"),
    path("now/", views.order_and_wait, name="order-and-wait"),
    path("<int:order_id>/", views.order, name="order"),
]
